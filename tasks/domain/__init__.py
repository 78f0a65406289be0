"""The words of the house: patients, hips, visits, volumes, stages of disease, tables, errors, parameters.

Nothing here reads or writes data files, and nothing here imports more than numpy, pandas, pydantic and pyyaml.
Space is the patient's LPS frame of DICOM (PS3.3 C.7.6.2.1.1): +x left, +y posterior, +z superior, in mm.
Arrays of volumes are (slice, row, column) = (D, H, W).
"""

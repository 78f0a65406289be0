"""De-identified studies to hip-visits: every scanner's series on one grid, in mm, with QC.

Reads data/studies/ (zip archives of DICOM) and data/studies.parquet. Writes data/hips/<batch>/<hip_visit>.safetensors
(tasks.store.hips: uint16 with scale, patient LPS, mm, right hips mirrored), data/hips.parquet (one row a hip-visit:
centre in mm, roles, status ok | not_measurable | rejected, reason, QC) and data/series.parquet (one row a series:
used | unused | rejected, and why; `affine` is the 4x4 index -> LPS, row by row, of its volume; `sops` its objects, and
`frames` the numbers of an enhanced object's frames, in the order of its slices), and data/hips/<batch>/<study>.png, the
QC sheet of a visit. After all visits `align` lays each hip's onto its first one:
`to_first` (4x4 of hip spaces, mm), `align_residual_mm`.

The item is a visit: all released studies of a subject within `visit_window_days`, named by the first of them. `process`
returns the rows of both tables, told apart by the column `table` (hips | series), and `finish` splits them.
"""

from tasks.standardize.stage import finish, pending, run, visit_item
from tasks.standardize.visit import process

__all__ = ["finish", "pending", "process", "run", "visit_item"]

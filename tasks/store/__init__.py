"""Readers and writers shared by the rooms: tables, hip files, study archives, atomic files, item-wise runs.

`tables`, `hips`, `files`, `items` and `digests` need numpy, pandas, pyarrow and safetensors alone, so that a GPU worker
can read what it trains on; `archives` opens study archives and hands out bytes, not DICOM objects.
"""

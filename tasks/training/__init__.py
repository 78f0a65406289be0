"""What the rooms that train share.

`recipe`      settings of a fit and of augmentation, as sections inside a room's own section of params.yaml
`data`        hip-visits, masks and labels as tensors
`augment`     random change on the device
`losses`      losses that pass over what nobody labelled
`loop`        the one training loop
`memory`      what a step frees is kept for the next one
`checkpoint`  state of a fit in one file, from which it goes on to the same bits
`models`      weights and their record on disk: safetensors beside JSON
`progress`    run.jsonl, which flows mirror to MLflow
`speed`       throughput and memory, beside what is versioned
`metrics`     discrimination and calibration with intervals that resample patients

Needs torch, numpy and pandas alone. Lengths are mm, times are days, risks are probabilities 0 to 1.
"""

"""The visit encoder: slices of one hip-visit to named clinical quantities, which the forecaster reads.

Reads data/hips, hips.parquet, masks, annotations.parquet and split.parquet. Writes, for each training fold, the network
that did not see it (models/classify/fold<k>.safetensors and .json) and models/classify/features.json (names of the
features and how slices are read); data/features.parquet: a vector for each hip-visit, training patients from the
network that did not see them, test patients as the mean over networks; reports/classify: metrics.json, curves.svg,
run.jsonl. Angles are degrees, collapse mm, fractions 0..1, `lesion` a logit, ordinal heads expected levels.

`tasks.classify.reading.encode` does the same for any hip files with a folder of trained networks.
"""

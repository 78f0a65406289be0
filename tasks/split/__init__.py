"""Patients to folds and the frozen test set; fails on any leak between them.

Reads: data/hips.parquet, data/annotations.parquet, data/studies.parquet, and data/split.parquet as it was.
Writes: data/split.parquet (subject, fold; `dealt`, the place given at first sight; `first_seen`, the batch) and
reports/split.json (counts by fold in persons, subjects, hips and hip-visits; who moved and why).

A person (all identities that merges.csv joins) stands in one fold with both hips and all visits: "0" to "k-1" are
trained on in turn, "test" is frozen, "external" holds the sites that are never trained on, and the fold is null for
those who withdrew consent. The place is given at first sight, by a hash for the test set and by balance for the folds,
and stays. What may move a person afterwards is a merge, withdrawn consent or a site named external: never from the test
set into training. `tainted` in the report names those on whom an earlier model was trained and who left training.
"""

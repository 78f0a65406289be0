"""Networks compared on one task: is there a lesion on this slice?

Reads data/hips, hips.parquet, masks, annotations.parquet and split.parquet. Writes, for each network,
reports/compare/<network>.json (what it is, how it learned, the digest of all it depends on) and <network>.parquet (its
prediction for each slice: probability 0..1 from a network that did not see that patient), reports/compare/run.jsonl,
and reports/compare.csv: a row for each network and unit (slice, hip_visit, patient). Areas are mm2, sizes pixels.
A network whose inputs, parameters and code are unchanged is not trained again. Test patients are not looked at.
How fast each network is here goes to reports/speed/compare.json, which is no stage's output: it differs each day.

`--protocol slice-split` deals folds to slices, as the paper did, beside patients: reports/compare-leakage.csv says by
how much that inflates each AUC and accuracy.
"""

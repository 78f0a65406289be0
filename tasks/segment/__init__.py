"""Head, lesion and vessel masks for every hip-visit, from networks that did not see that patient.

Reads data/hips, hips.parquet, masks (consensus of the readers), annotations.parquet and split.parquet. Writes, for each
training fold, models/segment/hip-fold<k> (head and lesion: LR-ASPP) and vessel-fold<k> (full-resolution U-Net), each a
.safetensors with its .json; data/segments/<hip_visit>.safetensors: uint8 tensors `head` and `lesion` on the visit grid
and `vessel` on the fine grid (only where there is a contrast series), with the metadata of the hip file;
reports/segment: metrics.json (Dice 0..1, distances in mm, beside the agreement of readers), curves.svg, run.jsonl.

A mask is made again only when its images or its networks have changed. Without masks to learn from there are no
networks and no segments, and metrics.json says why. `tasks.segment.predict.predict` segments one hip file.
"""

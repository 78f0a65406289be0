"""The tables of the workspace as one row a hip-visit, ready to be compared."""

from __future__ import annotations

import pandas as pd

NOT_COMPARED = (
    "hip_visit", "subject", "study", "side", "days", "date", "file", "digest", "item", "input_digest", "params_digest",
    "code_digest", "owns", "label", "fold", "hip", "batch", "site", "version", "origin", "horizon_days", "delta_days",
    "days_since_treatment", "center_x_mm", "center_y_mm", "center_z_mm",
    "first_visit", "to_first", "align_digest", "at_t1", "at_fluid", "at_contrast", "at_contrast_fine",
    "change_share", "change_status",
)  # fmt: skip
"""Keys, stamps and what depends on who came when, not on scanner, image or disease."""


def rows(
    hips: pd.DataFrame,
    measures: pd.DataFrame | None = None,
    features: pd.DataFrame | None = None,
    scores: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """hips.parquet with measurements, `feature_<i>` and scores joined by hip_visit; what is missing stays out."""
    frame = hips
    for other in (measures, scores):
        if other is not None and len(other):
            wanted = [
                c for c in other if c == "hip_visit" or (c not in frame and not str(c).endswith(("_se", "_change")))
            ]
            frame = frame.merge(other[wanted].drop_duplicates("hip_visit"), on="hip_visit", how="left")
    if features is not None and len(features):
        known = features.dropna(subset="features").drop_duplicates("hip_visit")
        vectors = pd.DataFrame(known["features"].tolist(), index=pd.Index(known["hip_visit"], name="hip_visit"))
        vectors.columns = [f"feature_{i}" for i in range(vectors.shape[1])]
        frame = frame.merge(vectors.reset_index(), on="hip_visit", how="left")
    return frame

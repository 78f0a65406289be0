"""Columns of the tables that rooms hand to each other. More columns are allowed; these are there, in this type.

`str` is a string or null, `float` is float64 with nulls as NaN, `vector` is list<float64> or null.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["str", "float", "vector"]

COLUMNS: dict[str, dict[str, Kind]] = {
    "batch": {"commitment": "str", "version": "float", "batch": "str", "origin": "str"},
    "studies": {
        "subject": "str", "study": "str", "version": "float", "batch": "str", "archive": "str",
        "files": "float", "days": "float", "status": "str",
        "reason": "str", "date": "str", "origin": "str", "site": "str", "digest": "str",
    },
    "series": {
        "study": "str", "series": "str", "role": "str", "vendor": "str", "spacing_mm": "vector",
        "slices": "float", "status": "str", "reason": "str",
    },
    "hips": {
        "hip_visit": "str", "subject": "str", "study": "str", "side": "str", "days": "float",
        "center_x_mm": "float", "center_y_mm": "float", "center_z_mm": "float", "roles": "str",
        "status": "str", "reason": "str", "file": "str", "digest": "str", "date": "str", "origin": "str",
    },
    "annotations": {
        "hip_visit": "str", "subject": "str", "side": "str", "reader": "str", "kind": "str", "name": "str",
        "value": "str", "source": "str", "days": "float",
    },
    "masks": {
        "hip_visit": "str", "subject": "str", "side": "str", "reader": "str", "name": "str", "status": "str",
        "reason": "str", "source": "str", "format": "str", "difference_mm": "float", "voxels": "float",
        "volume_mm3": "float", "other": "str", "dice": "float", "surface_mm": "float", "owns": "str",
    },
    "split": {"subject": "str", "fold": "str"},
    "features": {"hip_visit": "str", "subject": "str", "side": "str", "fold": "str", "features": "vector"},
    "measures": {
        "hip_visit": "str", "subject": "str", "study": "str", "side": "str", "days": "float",
        "lesion_fraction": "float", "lesion_fraction_se": "float",
        "lesion_volume_mm3": "float", "lesion_volume_mm3_se": "float",
        "kerboul_deg": "float", "kerboul_deg_se": "float", "collapse_mm": "float", "collapse_mm_se": "float",
        "vessel_length_mm": "float", "vessel_length_mm_se": "float",
        "vessel_branches": "float", "vessel_branches_se": "float", "vessel_status": "str",
    },
    "sequences": {
        "hip": "str", "hip_visit": "str", "subject": "str", "side": "str", "days": "float", "delta_days": "float",
        "treatment": "str", "days_since_treatment": "float", "label": "float", "horizon_days": "float",
        "fold": "str", "features": "vector",
    },
    "predictions": {
        "hip_visit": "str", "risk": "float", "risk_low": "float", "risk_high": "float", "abstain": "str",
    },
}  # fmt: skip
"""`studies.status`: released | superseded | frozen. `hips.status`: ok | not_measurable | rejected. `hips.roles` and
other lists of words are joined by '+', as in 't1+fluid+contrast'. `predictions.abstain` is empty or the reason.
`annotations.kind`: label | treatment | outcome | mask | merge | consent; `days` are since the subject's first visit;
reader 'consensus' stands beside the readers' own rows. `masks.status`: accepted | rejected | consensus | pair (how two
readers agree). `split.fold`: 0 to k-1 | test | external | null (consent withdrawn): train on numbers alone."""

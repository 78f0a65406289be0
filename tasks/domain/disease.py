"""Vocabularies of the clinic: staging systems, treatments, events. Order is severity."""

from __future__ import annotations

ARCO = ("1", "2", "3A", "3B", "4")
"""ARCO 2019: 1 MRI positive only, 2 radiographic without fracture, 3A depression <= 2 mm, 3B > 2 mm, 4 arthritis."""
FICAT = ("0", "1", "2", "3", "4")
STEINBERG = ("0", "1A", "1B", "1C", "2A", "2B", "2C", "3A", "3B", "3C", "4A", "4B", "4C", "5A", "5B", "5C", "6")
JIC = ("A", "B", "C1", "C2")
"""Japanese Investigation Committee type: extent of the lesion over the weight-bearing zone, medial to lateral."""

AETIOLOGIES = ("OTHER", "IDIOPATHIC", "ALCOHOL", "STEROID", "SICKLECELL", "TRAUMA")
"""What the necrosis is put down to; no order of severity. Spaces, hyphens and case do not matter in a table."""

LABELS = {
    "arco": ARCO, "ficat": FICAT, "steinberg": STEINBERG, "jic": JIC, "lesion": ("0", "1"), "aetiology": AETIOLOGIES,
}  # fmt: skip
"""Categorical labels of labels.csv and their allowed values."""
MEASURED_LABELS = {
    "collapse_mm": (0.0, 30.0),
    "kerboul_coronal_deg": (0.0, 360.0),
    "kerboul_sagittal_deg": (0.0, 360.0),
}
"""Numeric labels of labels.csv with their possible range, in the unit that the name ends with."""

TREATMENTS = (
    "observation",
    "bisphosphonate",
    "core_decompression",
    "vascularized_bone_graft",
    "nonvascular_graft",
    "stem_cells",
    "osteotomy",
    "arthroplasty",
)
EVENTS = ("collapse", "stage_up", "arthroplasty", "last_follow_up")
MASK_LABELS = ("head", "lesion", "vessel")

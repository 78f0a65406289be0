"""Labels, treatments, outcomes and masks of every reader, joined to hip-visits.

Two doors. `intake` (`osteoflow annotate SRC`, incoming.py) runs in the identified zone: it reads the design's clinical
tables, DICOM SEG, RTSTRUCT and SR (TID 1500), NIfTI, NRRD and Label Studio JSON as the hospital writes them, keeps a
byte copy there, and writes one immutable de-identified import below data/imports/: ids, UIDs and readers keyed, dates
shifted, with the same keys as the images. The stage (`python -m tasks.annotate`) joins all imports to what has arrived.

Reads: data/imports, data/studies.parquet, data/series.parquet, data/hips.parquet and data/hips.
Writes: data/annotations.parquet (kinds label, treatment, outcome, mask, merge, consent; `days` since the subject's
first visit), data/masks/<hip_visit>.safetensors (uint8 `<reader>/<label>` and `consensus/<label>`, head and lesion on
the visit grid, vessel on the fine grid), data/masks.parquet (every mask and pair of readers: accepted or rejected, with
the difference in mm, Dice and surface distance in mm) and reports/annotate (agreement, disagreements, corrections, what
waits). Readers that are no persons: adjudicator, consensus, computed (from masks), converted (from another staging).
"""

from typing import Any

__all__ = ["intake"]


def __getattr__(name: str) -> Any:
    """`intake` is imported when it is asked for: the stage needs neither pydicom nor its decoders."""
    if name == "intake":
        from tasks.annotate.incoming import intake

        return intake
    raise AttributeError(name)

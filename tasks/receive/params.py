"""Section `receive` of params.yaml. It is no DVC stage: it decides when a study is taken, not what is made of it."""

from __future__ import annotations

from tasks.domain.params import Section


class Params(Section):
    quiet_seconds: float
    """A study to which nothing came for this long may be complete."""
    incomplete_after_seconds: float
    """A quiet study that lacks slices, or files that were declared, goes to quarantine after this long."""
    gap_tolerance: float
    """A step between slice positions is a gap when it exceeds the series' own step by this fraction of it."""
    stable_seconds: float
    """A file in the watched inbox is taken when it has not changed for this long."""
    poll_seconds: float
    """Between two looks at the inbox, at the feeds, and for studies that became complete."""
    max_member_mb: float
    """Larger members of a zip are refused (MB)."""
    max_associations: int
    """DICOM senders at one time; one more is refused, and tries again."""
    disk_reserve_mb: float
    """With less free disk than this (MB), C-STORE is answered 'out of resources' until there is more."""
    dicomweb_days: float
    """Studies of the last days that a DICOMweb server is asked for; 0 asks for today's."""
    keep_originals_days: float | None
    """Originals of studies that are done are removed this long after they came; null keeps them."""

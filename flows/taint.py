"""Registered models that learned from patients who are not for training any more: tagged, and told by `status`.

Two identities that turn out to be one person stand in the test set when one of them did, a consent may be withdrawn, a
site be made external. Models made before that keep working and are named.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import yaml

from flows import lineage, tracking
from flows.verify import cache_file
from tasks.trace import left_training, taint_reason, trained_on

SPLIT = Path("data/split.parquet")


def mark() -> dict[int, str]:
    """Tag every version that is tainted, seen from the split as it is now; {version: reason}."""
    if not SPLIT.exists():
        return {}
    now = pq.read_table(SPLIT).to_pandas()
    found = {}
    for version in tracking.versions():
        left = left_training(split_of(version), now)
        if left:
            found[version.number] = taint_reason(left)
            if version.tags.get("tainted") != found[version.number]:
                tracking.tag(version.number, {"tainted": found[version.number]})
    return found


def learned_from(version: tracking.Version) -> set[str]:
    """Subjects whom this version was trained on, as far as its split can still be read."""
    return set(trained_on(split_of(version)))


def split_of(version: tracking.Version) -> pd.DataFrame | None:
    """data/split.parquet as it was when the version was made, from DVC's cache."""
    commit = version.tags.get("lineage", "")
    lock = yaml.safe_load(lineage.show(commit, "dvc.lock")) or {} if commit else {}
    digests = {out["path"]: out["md5"] for stage in lock.get("stages", {}).values() for out in stage.get("outs", [])}
    cached = cache_file(digests.get(str(SPLIT), ""))
    return pq.read_table(cached).to_pandas() if cached is not None and cached.exists() else None

"""The slices that networks are compared on, and what each one shows."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import pandas as pd
import torch

from tasks.compare.params import Params
from tasks.domain.hip import ROLES
from tasks.training import data


def table(params: Params, rows: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """One row a slice: hip_visit, subject, fold, visit (row of `rows`), slice, label (0|1).

    With masks, slices with the head are taken and the lesion's area on the slice decides; without, slices near the
    centre are, and the hip's own label decides.
    """
    hip_label = rows["hip_visit"].map(labels["lesion"]).to_numpy(dtype=float)
    grid = data.stack(rows["path"].tolist()[:1]) if len(rows) else None
    if grid is None:
        return pd.DataFrame({name: [] for name in ("hip_visit", "subject", "fold", "visit", "slice", "label")})
    masks = data.masks(rows["mask"].tolist(), ("head", "lesion"), tuple(grid.bits.shape[2:]), hip_label.tolist())
    pixel = grid.spacing[1] * grid.spacing[2]
    area = masks.masks.flatten(3).sum(3, dtype=torch.float32).numpy() * pixel
    known = masks.known.numpy() > 0
    near = (grid.places().abs() <= params.reach_mm).numpy()
    out = []
    for visit, row in enumerate(rows.itertuples()):
        head, lesion = area[visit]
        if known[visit].all():
            unsure = (lesion > 0) & (lesion < params.min_lesion_mm2)
            usable, label = (head >= params.min_head_mm2) & ~unsure, (lesion >= params.min_lesion_mm2).astype(float)
        elif np.isfinite(hip_label[visit]):
            usable, label = near, np.full(len(head), hip_label[visit])
        else:
            continue
        places = np.flatnonzero(usable)
        if params.slices and len(places) > params.slices:
            places = places[np.linspace(0, len(places) - 1, params.slices).round().astype(int)]
        out += [(row.hip_visit, row.subject, row.fold, visit, int(place), label[place]) for place in places]
    return pd.DataFrame(out, columns=["hip_visit", "subject", "fold", "visit", "slice", "label"])


def by_slice(slices: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Folds dealt to slices instead of patients: the mistake, for showing what it does."""
    names = sorted(slices["fold"].unique())
    dealt = np.random.default_rng(seed).permutation(np.arange(len(slices)) % len(names))
    return slices.assign(fold=[names[i] for i in dealt])


def shuffled(slices: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A label drawn by lot for each patient: there is nothing to learn but who it is."""
    subjects = sorted(slices["subject"].unique())
    drawn = np.random.default_rng(seed).permutation(np.arange(len(subjects)) % 2)
    lot = dict(zip(subjects, drawn.astype(float), strict=True))
    return slices.assign(label=slices["subject"].map(lot))


def digest(slices: pd.DataFrame) -> str:
    return hashlib.sha256(slices.to_csv(index=False).encode()).hexdigest()


@lru_cache(maxsize=1)
def images(paths: tuple[str, ...], size_px: int, fingerprint: str) -> data.Stack:
    """The volumes of all hip-visits, kept by a warm process while `fingerprint` (of their bytes) stays the same."""
    return data.stack(paths, ROLES, size_px)

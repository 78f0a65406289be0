"""What a reader drew: one label, one array with its place in the patient, and what proves where it belongs."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.domain.errors import BadInput
from tasks.store.hips import HipFile

MAX_VOXELS = 200_000_000
"""Masks that claim more are refused before they are decoded (a bilateral hip MR has 1 to 30 million)."""

MAX_BYTES = 2**30
"""A mask file, or the array that it claims to hold, is never larger than this."""

WORDS = {
    "lesion": ("lesion", "lasion", "laesion", "necros", "necrot", "nekro", "onfh", "avn", "infarct", "infarkt"),
    "vessel": ("vessel", "vascul", "artery", "arteri", "vein", "gefa", "vaisseau"),
    "head": ("head", "caput", "kopf", "tete", "cabeza", "testa"),
}
"""Label -> what its names in DICOM SEG, RTSTRUCT and drawing programs contain, without accents; the first that fits
wins, so that 'necrosis of the femoral head' is a lesion."""


SIDES = {
    "L": ("left", "lt", "links", "linke", "linker", "li", "gauche", "izquierda", "izquierdo", "sinistra", "sin", "l"),
    "R": ("right", "rt", "rechts", "rechte", "rechter", "re", "droite", "droit", "derecha", "derecho", "destra", "r"),
}
"""Words of a name that claim a side, standing alone: 'head_L', 'Left femoral head'."""


@dataclass(frozen=True)
class Drawn:
    """array: bool (D, H, W). affine: index -> LPS mm, or None when only `sop` (the slice) says where it is.

    Empty text is 'not said'. `side` is what the reader claims (L, R or nothing: geometry decides). UIDs and names are
    the originals until `intake` keys them. `thick` is False when a single plane did not say its thickness. Masks of one
    `document` came in one file of the import.
    """

    label: str
    array: NDArray[np.bool_]
    affine: NDArray[np.float64] | None
    kind: str
    study: str = ""
    series: str = ""
    frame: str = ""
    sop: str = ""
    reader: str = ""
    side: str = ""
    patient_id: str | None = None
    site: str | None = None
    thick: bool = True
    row: int | None = None
    document: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def label_of(*names: object) -> str | None:
    """head, lesion or vessel by the first of `names` that says so."""
    for name in names:
        text = _plain(name)
        if text in WORDS:
            return text
        for label, words in WORDS.items():
            if any(word in text for word in words):
                return label
    return None


def side_of(*names: object, described: tuple[object, ...] = ()) -> str:
    """L or R by the first of `names`, then of the free texts `described`, that claims one side; nothing when none does,
    or one claims both. One or two letters claim a side in a name alone: a text may say 'by R. Meier'."""
    for shortest, texts in ((1, names), (3, described)):
        for text in texts:
            plain = re.sub(r"\b\w['’]", " ", _plain(text))  # de l'épiphyse
            words = {word for word in re.split(r"[\W_]+", plain) if len(word) >= shortest}
            claimed = [side for side, own in SIDES.items() if words & set(own)]
            if claimed:
                return claimed[0] if len(claimed) == 1 else ""
    return ""


def _plain(text: object) -> str:
    """Small letters without accents, however they are encoded."""
    apart = unicodedata.normalize("NFKD", str(text or "").lower())
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


def check_size(*shape: int, item: int = 1) -> None:
    """Refuse what claims more voxels, or with `item` bytes each more memory, than any mask has."""
    voxels = int(np.prod([int(n) for n in shape], dtype=np.float64))
    if voxels > MAX_VOXELS or min(shape) < 1:
        raise BadInput("absurd_size", f"claims {voxels:,} voxels; a mask may have {MAX_VOXELS:,}")
    if voxels * item > MAX_BYTES:
        raise BadInput(
            "absurd_size", f"claims {voxels * item / 2**30:.1f} GiB; a mask may have {MAX_BYTES / 2**30:.0f}"
        )


def check_affine(affine: NDArray[np.float64]) -> None:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() < 1e-3 or spacing.max() > 100:
        raise BadInput("bad_geometry", "its voxels have no size, or one that no scanner has")
    unit = affine[:3, :3] / spacing
    skew = float(np.abs(unit.T @ unit - np.eye(3)).max())
    if skew > 0.02:
        raise BadInput("bad_geometry", f"its axes are not at right angles (cosine {skew:.3f})")


def stack(planes: dict[float, NDArray[np.bool_]], pitch: float | None, tolerance: float = 0.2) -> tuple[NDArray, float]:
    """Slices by their offset along the normal in mm -> ((D, H, W), mm between slices). Missing slices are empty.

    `pitch` is the spacing that is claimed (None: the smallest step). Steps must be whole multiples of it.
    """
    offsets = sorted(planes)
    steps = np.diff(offsets)
    if len(steps) and (pitch is None or not _multiples(steps, pitch, tolerance)):
        pitch = float(steps.min())
        if not _multiples(steps, pitch, tolerance):
            raise BadInput("uneven_slices", f"steps of {steps.min():.2f} to {steps.max():.2f} mm between its slices")
    assert pitch is not None
    index = np.zeros(len(offsets), dtype=int)
    if len(steps):  # counted step by step: what a claimed pitch is wrong by adds up over a stack
        single = steps[np.round(steps / pitch) == 1]
        if len(single) and _multiples(steps, float(single.mean()), tolerance):
            pitch = float(single.mean())
        index[1:] = np.cumsum(np.round(steps / pitch))
        pitch = (offsets[-1] - offsets[0]) / int(index[-1])  # the mean step, free of the rounding of single positions
    first = planes[offsets[0]]
    check_size(index[-1] + 1, *first.shape)
    array = np.zeros((index[-1] + 1, *first.shape), dtype=bool)
    for n, offset in zip(index, offsets, strict=True):
        array[n] |= planes[offset]
    return array, pitch


def _multiples(steps: NDArray[np.float64], pitch: float, tolerance: float) -> bool:
    whole = np.round(steps / pitch)
    return bool((whole >= 1).all() and (np.abs(steps - whole * pitch) <= tolerance).all())


def bounds(array: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """(first, last + 1) index of what is drawn, or None."""
    edges = []
    for axis in range(3):
        other = tuple(n for n in range(3) if n != axis)
        used = np.flatnonzero(array.any(axis=other))
        if not len(used):
            return None
        edges.append((used[0], used[-1] + 1))
    return np.array([low for low, _ in edges]), np.array([high for _, high in edges])


def to_file(drawn: Drawn) -> HipFile:
    """Cropped to what is drawn and packed to bits: what an import keeps of the array."""
    found = bounds(drawn.array)
    full = {"shape": list(drawn.array.shape), "affine": None if drawn.affine is None else drawn.affine.tolist()}
    low, high = found if found else (np.zeros(3, dtype=int), np.ones(3, dtype=int))
    crop = drawn.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    meta = {"shape": list(crop.shape), "low": [int(n) for n in low], "full": full, "voxels": int(crop.sum())}
    return HipFile({"bits": np.packbits(crop.ravel())}, meta)


def from_file(file: HipFile) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None, dict[str, Any]]:
    """(array with a margin of one empty voxel, its affine, metadata) of what `to_file` packed."""
    shape = file.meta["shape"]
    crop = np.unpackbits(file.tensors["bits"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    affine = file.meta["full"]["affine"]
    if affine is not None:
        affine = np.array(affine, dtype=np.float64)
        affine[:3, 3] += affine[:3, :3] @ (np.array(file.meta["low"]) - 1.0)
    return np.pad(crop, 1), affine, file.meta

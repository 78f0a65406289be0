"""NRRD (3D Slicer's .seg.nrrd included) and MetaImage masks; SimpleITK gives positions in LPS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from tasks.annotate.drawn import check_affine, check_size, label_of, side_of
from tasks.domain.errors import BadInput

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

DATA = (".raw", ".raw.gz", ".zraw")
"""How the data beside a detached header is named."""

ENCODINGS = ("raw", "gzip", "gz", "ascii", "text", "txt", "hex")
"""Of NRRD, as ITK reads them."""

ITEM = {sitk.sitkUInt8: 1, sitk.sitkInt8: 1, sitk.sitkVectorUInt8: 1, sitk.sitkUInt16: 2, sitk.sitkInt16: 2}
"""Bytes of a value, of the kinds that masks have; others are taken for eight."""


def read(path: Path, label: str, value: int | None, side: str) -> tuple[NDArray[np.bool_], NDArray[np.float64], bool]:
    """(bool (D, H, W), affine to LPS mm, whether the file itself names its segments) of `label`.

    A file that names its segments (3D Slicer) gives all that are `label`, of `side` where their names claim sides;
    another one its `value`, or all that is not 0.
    """
    _inside(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        check_size(*size, item=reader.GetNumberOfComponents() * ITEM.get(reader.GetPixelID(), 8))
        if len(size) != 3:
            raise BadInput("not_a_volume", f"has {len(size)} dimensions; a mask has 3")
        image = reader.Execute()
    except RuntimeError:
        raise BadInput("damaged", "cannot be read as NRRD or MetaImage") from None
    values = sitk.GetArrayFromImage(image)
    layers = values if values.ndim == 4 else values[..., None]  # overlapping segments stand in layers
    segments = _segments(reader)
    array = _of(layers, segments, label, value, side)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = (direction * np.array(image.GetSpacing()))[:, ::-1]  # (i, j, k) of the file -> (d, h, w)
    affine[:3, 3] = image.GetOrigin()
    check_affine(affine)
    return array, affine, bool(segments)


def _of(layers: NDArray, segments: list[dict], label: str, value: int | None, side: str) -> NDArray[np.bool_]:
    if value is not None or not segments:
        if layers.shape[3] > 1:
            raise BadInput("several_layers", "holds several layers and names no segment; save one segment in a file")
        return layers[..., 0] == value if value is not None else layers[..., 0] > 0
    wanted = [s for s in segments if s["label"] == label and (not side or s["side"] in ("", side))]
    if not wanted:
        raise BadInput("no_known_segment", f"names no segment as {label}{f' of side {side}' if side else ''}")
    if any(s["layer"] >= layers.shape[3] for s in wanted):
        raise BadInput("malformed", "names a layer that it does not hold")
    return np.any([layers[..., s["layer"]] == s["value"] for s in wanted], axis=0)


def _inside(path: Path) -> None:
    """A detached header may name any file of this machine as its data; only one beside it is read."""
    with open(path, "rb") as handle:
        header = handle.read(65536).split(b"\n\n")[0].decode("latin-1")
    meta_image = path.suffix.lower() in (".mha", ".mhd")
    for line in header.splitlines():
        key, _, text = line.partition("=" if meta_image else ":")
        key, name = key.strip().lower().replace(" ", ""), text.strip()
        if key in ("datafile", "elementdatafile") and name != "LOCAL":
            beside = (path.parent / name).resolve().is_relative_to(path.parent.resolve())
            if name.upper().startswith("LIST") or "%" in name or not beside:
                raise BadInput("outside", "its data is not one file beside its header")
        if key == "elementdatafile":
            return  # the data begins here
        if key == "encoding" and not meta_image and name.lower() not in ENCODINGS:
            kind = "bzip2" if name.lower() in ("bzip2", "bz2") else "of another kind"
            raise BadInput("unknown_encoding", f"its data is {kind}; save it raw or with gzip")


def _segments(reader: sitk.ImageFileReader) -> list[dict]:
    keys = set(reader.GetMetaDataKeys())
    found = []
    for n in range(1000):
        if f"Segment{n}_LabelValue" not in keys:
            break
        names = [reader.GetMetaData(key) for key in (f"Segment{n}_Name", f"Segment{n}_Tags") if key in keys]
        layer = int(reader.GetMetaData(f"Segment{n}_Layer")) if f"Segment{n}_Layer" in keys else 0
        value = int(reader.GetMetaData(f"Segment{n}_LabelValue"))
        found.append(
            {"label": label_of(*names), "side": side_of(names[0] if names else ""), "layer": layer, "value": value}
        )
    return found

"""Label Studio JSON exports: polygons, ellipses, rectangles, brush strokes and bitmasks on slices, to bool planes.

A task's `data` says which slice was drawn on: study_instance_uid, series_instance_uid and sop_instance_uid (or DICOM's
own names of these, or slice_index, from 0 in order of position), or the address of its picture does (DICOMweb, WADO). A
task of several pictures (`item_index` of a region) lists them. The reader is the annotation's `completed_by`; of a
reader's several annotations of a task the one marked as ground truth counts, else the latest. JSON-MIN is read as well.
"""

from __future__ import annotations

import base64
import io
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from skimage.draw import ellipse, polygon2mask

from tasks.annotate.drawn import Drawn, check_size, label_of
from tasks.domain.errors import BadInput

CHANNELS = 4
"""Brush strokes are RGBA; the last channel is the mask."""

BRUSH_LIMIT = 128

ADDRESSES = re.compile(r"/studies/([0-9.]+)/series/([0-9.]+)(?:/instances/([0-9.]+))?")
"""Of DICOMweb (PS3.18): study, series, instance."""

SHAPES = ("polygon", "brush", "ellipse", "rectangle", "bitmask")
NO_AREA = ("keypoint", "vector", "videorectangle", "timeline", "cuboid")
"""Regions that fill nothing, or not one picture: told, and left out. Choices and texts are passed over."""


def is_export(value: Any) -> bool:
    """Whether a decoded JSON file is a list of tasks with annotations (JSON), or of annotations (JSON-MIN)."""
    return isinstance(value, list) and bool(value) and all(isinstance(t, dict) and _is_task(t) for t in value)


def _is_task(one: dict[str, Any]) -> bool:
    return "annotations" in one or {"annotation_id", "annotator"} <= one.keys()


def _tasks(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON-MIN as JSON: there each annotation is an entry, and the regions of a tool stand beside the task's data."""
    tasks: dict[str, dict[str, Any]] = {}
    for n, one in enumerate(value):
        if "annotations" in one:
            tasks[f"task {n}"] = one
            continue
        regions = [region for part in one.values() if isinstance(part, list) for region in part]
        kinds = [next((k for k in r if k.endswith("labels")), "") if isinstance(r, dict) else "" for r in regions]
        result = [r | {"value": r, "type": kind} for r, kind in zip(regions, kinds, strict=True) if kind]
        task = tasks.setdefault(str(one.get("id", f"task {n}")), {"data": one, "annotations": []})
        task["annotations"].append(one | {"completed_by": one["annotator"], "result": result})
    return list(tasks.values())


def _last_words(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One for each reader."""
    last: dict[str, dict[str, Any]] = {}
    for one in annotations:
        reader = _reader(one.get("completed_by"))
        if reader not in last or _order(one) >= _order(last[reader]):
            last[reader] = one
    return list(last.values())


def _order(annotation: dict[str, Any]) -> tuple[bool, str]:
    return bool(annotation.get("ground_truth")), str(annotation.get("updated_at") or annotation.get("created_at") or "")


def read(tasks: list[dict[str, Any]]) -> tuple[list[Drawn], list[str]]:
    """One plane for each task, slice, reader and label; `affine` is None: the slice says where it is."""
    drawn: list[Drawn] = []
    notes: list[str] = []
    for n, task in enumerate(_tasks(tasks), 1):
        data, given = task.get("data") or {}, [one for one in task["annotations"] if not one.get("was_cancelled")]
        annotations = _last_words(given)
        if len(given) > len(annotations):
            notes.append(
                f"task {n}: {len(given) - len(annotations)} other annotations of the same reader were left out"
            )
        for annotation in annotations:
            planes: dict[tuple[int, str], NDArray[np.bool_]] = {}
            regions = annotation.get("result") or []
            named = _named(regions)
            for result in regions:
                if named.get(result.get("id")) is not result and result.get("id") in named:
                    continue  # the same region without its label
                label, plane = _plane(result, n)
                if plane is None:
                    kind = str(result.get("type", "")).lower().removesuffix("labels")
                    if kind in NO_AREA:
                        notes.append(f"task {n}: a {kind} region is no area of one picture and was left out")
                    continue
                if label is None:
                    notes.append(f"task {n}: a region is neither head, lesion nor vessel and was left out")
                    continue
                key = int(result.get("item_index") or 0), label
                if key in planes and planes[key].shape != plane.shape:
                    raise BadInput("malformed", f"task {n}: its regions claim different image sizes")
                planes[key] = planes[key] | plane if key in planes else plane
            for (item, label), plane in sorted(planes.items(), key=lambda entry: entry[0]):
                place, extra = _slice(data, item, n)
                reader = _reader(annotation.get("completed_by"))
                drawn.append(
                    Drawn(label, plane[None], None, "label_studio", **place, reader=reader, thick=False, extra=extra)
                )
    return drawn, notes


def _slice(data: dict[str, Any], item: int, task: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """UIDs of the slice that picture `item` of a task shows, and {index} where its place in the series is given."""

    plain = {re.sub("[^a-z]", "", key.lower()): value for key, value in data.items()}

    def said(name: str) -> Any:
        value = plain.get(name)
        if isinstance(value, list):
            return value[item] if item < len(value) else None
        return value if item == 0 or name in ("studyinstanceuid", "seriesinstanceuid") else None

    place: dict[str, Any] = {name: str(said(f"{name}instanceuid") or "") for name in ("study", "series", "sop")}
    index = said("sliceindex")
    for value in () if all(place.values()) else data.values():
        pictures = value if isinstance(value, list) else [value]
        picture = pictures[item] if item < len(pictures) else None
        address = _address(picture) if isinstance(picture, str) else {}
        place |= {name: address.get(name, "") for name in place if not place[name]}
    if not place["study"] or not place["series"] or not (place["sop"] or isinstance(index, int)):
        which = f" of picture {item + 1}" if item else ""
        raise BadInput(
            "no_image_named",
            f"task {task} does not name study, series and slice{which or ' of its image'}: give study_instance_uid, "
            "series_instance_uid and sop_instance_uid in its data",
        )
    return place, {"index": index} if isinstance(index, int) else {}


def _address(text: str) -> dict[str, str]:
    """UIDs in the address of a picture: DICOMweb's path, or the query of WADO-URI."""
    found = ADDRESSES.search(text)
    if found:
        return dict(zip(("study", "series", "sop"), (part or "" for part in found.groups()), strict=True))
    try:
        query = parse_qs(urlsplit(text).query)
    except ValueError:
        return {}
    names = {"study": "studyUID", "series": "seriesUID", "sop": "objectUID"}
    return {name: query[key][0] for name, key in names.items() if key in query}


def _named(regions: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """{id: the result with the label} of regions that come twice, as a shape and as what it is called."""
    return {
        one["id"]: one for one in regions if "id" in one and any(key.endswith("labels") for key in one.get("value", {}))
    }


def _reader(completed_by: Any) -> str:
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return str(completed_by if completed_by is not None else "not named")


def _plane(result: dict[str, Any], task: int) -> tuple[str | None, NDArray[np.bool_] | None]:
    """(label, bool (H, W)) of one region; (_, None) when it is no region."""
    kind = str(result.get("type", "")).lower()
    value = result.get("value", {})
    shape = next((s for s in SHAPES if s == kind.removesuffix("labels") or s in value), None)
    if kind == "labels":
        by = {
            "rle": "brush",
            "imageDataURL": "bitmask",
            "points": "polygon",
            "radiusX": "ellipse",
            "width": "rectangle",
        }
        shape = next((by[name] for name in by if name in value), shape)
    if shape is None:
        return None, None
    height, width = int(result.get("original_height", 0)), int(result.get("original_width", 0))
    check_size(height, width, CHANNELS)
    if result.get("image_rotation"):
        raise BadInput("rotated", f"task {task}: a region was drawn on a rotated image")
    names = [name for key, texts in value.items() if key.endswith("labels") for name in texts]
    return label_of(*names), _drawn(shape, value, height, width)


def _drawn(shape: str, value: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    scale = np.array([height, width]) / 100  # positions are percent; pixel n covers [n, n + 1)
    if shape == "brush":
        flat = decode_rle(value["rle"])
        if flat.size != height * width * CHANNELS:
            raise BadInput("malformed", f"a brush stroke of {flat.size} values on {height} x {width} pixels")
        alpha = flat.reshape(height, width, CHANNELS)[..., CHANNELS - 1]
        return (alpha > 0) & (alpha >= alpha.max() / 2)  # converters write 255, 100 or 1 where something is drawn
    if shape == "bitmask":
        return decode_bitmask(str(value["imageDataURL"]), height, width)
    if shape == "polygon":
        points = np.array(value["points"], dtype=np.float64)[:, ::-1] * scale - 0.5
        return polygon2mask((height, width), points)
    x, y = float(value["x"]), float(value["y"])
    plane = np.zeros((height, width), dtype=bool)
    turn = np.deg2rad(float(value.get("rotation", 0)))
    if shape == "ellipse":
        centre = np.array([y, x]) * scale - 0.5
        radii = np.array([value["radiusY"], value["radiusX"]], dtype=np.float64) * scale
        rows, columns = ellipse(centre[0], centre[1], radii[0], radii[1], shape=plane.shape, rotation=-turn)
        plane[rows, columns] = True
        return plane
    corners = np.array([[0, 0], [0, value["width"]], [value["height"], value["width"]], [value["height"], 0]]) * scale
    turned = corners @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return polygon2mask((height, width), turned + np.array([y, x]) * scale - 0.5)


def decode_bitmask(url: str, height: int, width: int) -> NDArray[np.bool_]:
    """A PNG as data URL, drawn on a transparent ground (or, without transparency, on a black one)."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2], validate=True)), formats=("PNG",))
    except (UnidentifiedImageError, OSError, ValueError):
        raise BadInput("malformed", "a bitmask that is no PNG") from None
    if image.size != (width, height):  # known from its header: a bomb is not unpacked
        raise BadInput("malformed", f"a bitmask of {image.size[1]} x {image.size[0]} on {height} x {width} pixels")
    try:
        if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
            return np.asarray(image.convert("RGBA"))[..., 3] >= BRUSH_LIMIT
        return np.asarray(image.convert("L")) >= BRUSH_LIMIT
    except (OSError, SyntaxError, ValueError):
        raise BadInput("damaged", "a bitmask whose PNG ends early") from None


def decode_rle(code: list[int]) -> NDArray[np.uint8]:
    """Label Studio's brush code: a bit stream of 32 bits length, 5 bits word size - 1, four times 4 bits run size - 1,
    then runs: 1 bit repeat?, 2 bits which run size, the run's length - 1, and one word (repeated) or as many words."""
    bits = np.unpackbits(np.array(code, dtype=np.uint8))
    weights = 1 << np.arange(31, -1, -1, dtype=np.int64)
    at = 0

    def take(size: int) -> int:
        nonlocal at
        if at + size > bits.size:
            raise BadInput("damaged", "a brush stroke ends before its length")
        value = int(bits[at : at + size] @ weights[-size:])
        at += size
        return value

    total, word = take(32), take(5) + 1
    check_size(total)
    sizes = [take(4) + 1 for _ in range(4)]
    values = np.zeros(total, dtype=np.uint8)
    done = 0
    while done < total:
        repeated = take(1)
        end = min(done + 1 + take(sizes[take(2)]), total)
        if repeated:
            values[done:end] = take(word)
        else:
            count = end - done
            if at + count * word > bits.size:
                raise BadInput("damaged", "a brush stroke ends before its length")
            words = bits[at : at + count * word].reshape(count, word)
            values[done:end] = words @ weights[-word:]
            at += count * word
        done = end
    return values

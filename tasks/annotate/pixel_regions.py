"""Regions that a structured report draws in the pixels of one image (SCOORD, PS3.3 C.18.6): to bool planes.

Positions are (column, row) from the upper left corner of the image, so that pixel n covers n to n + 1. The report does
not say how large the image is: a plane reaches as far as what is drawn, and is laid into its image when that is there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from skimage.draw import polygon2mask

from tasks.annotate.drawn import check_size
from tasks.domain.errors import BadInput

CLOSED_PIXELS = 1.0
"""A line whose ends are this near to each other is closed."""

CORNERS = 180
"""Of the polygon that a circle or an ellipse is filled as."""


def fill(item: Dataset) -> NDArray[np.bool_]:
    """bool (1, H, W), from the image's upper left corner, of one closed region."""
    if str(item.get("PixelOriginInterpretation") or "FRAME") != "FRAME":
        raise BadInput("tiled", "in the pixels of a whole slide")
    data = np.array(item.get("GraphicData") or [], dtype=np.float64)
    if data.size % 2 or data.size < 4 or not np.isfinite(data).all():
        raise BadInput("malformed", "what has no points")
    outline = _outline(str(item.get("GraphicType", "")), data.reshape(-1, 2))
    if outline.min() < -0.5:
        raise BadInput("outside", "outside its image")
    width, height = (int(n) for n in np.ceil(outline.max(axis=0)) + 1)
    check_size(1, height, width)
    return polygon2mask((height, width), outline[:, ::-1] - 0.5)[None]


def _outline(kind: str, points: NDArray[np.float64]) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)[:, None]
    if kind in ("POLYLINE", "POLYGON") and len(points) >= 4 - (kind == "POLYGON"):
        if kind == "POLYGON" or np.linalg.norm(points[0] - points[-1]) <= CLOSED_PIXELS:
            return points
    elif kind == "CIRCLE" and len(points) == 2:  # its centre, and a point on it
        return points[0] + np.linalg.norm(points[1] - points[0]) * np.hstack([np.cos(turn), np.sin(turn)])
    elif kind == "ELLIPSE" and len(points) == 4:  # the ends of the one axis, and of the other
        return points[:2].mean(0) + 0.5 * (
            np.cos(turn) * (points[1] - points[0]) + np.sin(turn) * (points[3] - points[2])
        )
    raise BadInput("not_closed", "what is no closed line, circle or ellipse")


def image(report: Dataset, item: Dataset) -> tuple[str, int | None]:
    """(SOPInstanceUID, frame from 1 or None) of the image that a region was drawn on; it may be named by its place in
    the report's tree."""
    for child in item.get("ContentSequence", []):
        path = child.get("ReferencedContentItemIdentifier")
        one = child if path is None else _at(report, [int(n) for n in np.atleast_1d(path)])
        for cited in [] if one is None else one.get("ReferencedSOPSequence", []):
            frames = np.atleast_1d(cited.get("ReferencedFrameNumber") or [])
            if len(frames) > 1:
                raise BadInput("several_frames", "on several frames at a time")
            return str(cited.ReferencedSOPInstanceUID), int(frames[0]) if len(frames) else None
    raise BadInput("no_image", "on no image that is named")


def _at(report: Dataset, path: list[int]) -> Dataset | None:
    """The item at `path`, counted from 1 at the root."""
    one = report
    for number in path[1:]:
        items = one.get("ContentSequence", [])
        if not 1 <= number <= len(items):
            return None
        one = items[number - 1]
    return one

"""A picture of the cohort: the three series of some patients, at the level of the heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.io import imsave
from skimage.transform import resize

from tasks.phantom.study import Rendered, StudyPlan

PIXEL_MM = 1.1


def thumbnails(rendered: Rendered, plan: StudyPlan) -> list[NDArray[np.uint8]]:
    """Mid-head slices of T1, STIR and contrast series, then the contrast series' maximum over the heads."""
    middle = np.mean([state.centre for state in rendered.states.values()], axis=0)
    pictures = []
    for series in rendered.series:
        index = int(np.clip(round((np.linalg.inv(series.affine) @ [*middle, 1])[0]), 0, len(series.pixels) - 1))
        pictures.append(_picture(series.pixels[index], series.protocol.spacing[1], np.percentile(series.pixels, 99.5)))
    last = rendered.series[-1]
    pictures.append(_picture(last.pixels.max(axis=0), last.protocol.spacing[1], np.percentile(last.pixels, 99.9)))
    return pictures


def _picture(pixels: NDArray, spacing: float, top: float) -> NDArray[np.uint8]:
    shape = (round(pixels.shape[0] * spacing / PIXEL_MM), round(pixels.shape[1] * spacing / PIXEL_MM))
    grey = resize(np.clip(pixels.astype(np.float32) / max(float(top), 1.0), 0, 1), shape, order=1)
    return np.asarray(np.round(grey * 255), dtype=np.uint8)


def write_montage(path: Path, rows: list[list[NDArray[np.uint8]]]) -> None:
    """One row a patient. Right of the patient is on the left of the picture, as radiologists look at it."""
    if not rows:
        return
    height = max(picture.shape[0] for row in rows for picture in row)
    width = max(picture.shape[1] for row in rows for picture in row)
    sheet = np.zeros((len(rows) * height, max(len(row) for row in rows) * width), np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
            sheet[
                i * height + top : i * height + top + picture.shape[0],
                j * width + left : j * width + left + picture.shape[1],
            ] = picture
    imsave(path, sheet, check_contrast=False)

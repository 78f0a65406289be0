"""Text that is written into a picture: where it stands, in pixels.

    strokes (written in one value, or brighter or darker than all around them) → letters → lines → read by OCR

A line is several letters of one height on one base line. Strokes of exactly one value in such a line are ink, in any
script: no tissue looks so. Other lines count when OCR reads words in them. `words` is the second look: OCR over the
whole picture, which shares nothing with the way above. Nothing that is read is kept; only places are.

The OCR engine is Debian's tesseract, run as a program; `engine` says whether it is there, `languages`
in which scripts it reads.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from unicodedata import east_asian_width

import numpy as np
from numpy.typing import NDArray

from tasks.domain.errors import BadInput
from tasks.domain.settings import OCR

Box = tuple[int, int, int, int]
"""rows from, to, columns from, to (ends not included)."""
Plane = NDArray[np.generic]
Mask = NDArray[np.bool_]

LEAST_INK = 24
"""Pixels: less is no text that anybody could read."""
MOST_LETTERS = 2500
LETTER_HEIGHT = (5, 72)
LEAST_CONTRAST = 0.1
"""Of the picture's span: letters that differ less from what is around them are not seen by whoever looks at it."""
SURE, POSSIBLE = 60.0, 25.0
"""Tesseract's confidence (of 100) from which a word counts: where nothing marks a risk, and where something does."""
SECONDS = 60.0
_TOUCHING = np.ones((3, 3), np.bool_)
"""Pixels belong together across corners, too."""
ENGINE_FAILED = "text_engine_failed"
SCRIPTS = ("eng", "chi_sim", "chi_tra", "jpn", "kor", "rus", "ell", "ara", "heb", "tha", "hin")
"""A language for each script: that there are letters has to be seen, not what they say."""


@functools.cache
def engine() -> str:
    """The program that reads, '' when none is installed."""
    return shutil.which(OCR) or ""


@functools.cache
def languages(program: str) -> tuple[str, ...]:
    """Those of SCRIPTS that the engine has data for (Debian: tesseract-ocr-chi-sim, -jpn, -rus …)."""
    try:
        listed = subprocess.run([program, "--list-langs"], capture_output=True, timeout=SECONDS, check=False).stdout
    except (subprocess.TimeoutExpired, OSError):
        return ()
    there = set(listed.decode("utf-8", "replace").split())
    return tuple(language for language in SCRIPTS if language in there)


def lines(plane: Plane, marked: bool) -> list[Box]:
    """The lines of text in one picture of one channel. `marked`: the file itself says that there may be some."""
    plane = np.ascontiguousarray(plane)
    found: list[Box] = []
    unsure: list[tuple[Box, NDArray[np.uint8]]] = []
    for mask, one_value in _strokes(plane, marked):
        for box, letters in _lines_of(mask):
            if letters >= (4 if one_value else 8 if marked else 1000):
                found.append(box)
            else:
                top, bottom, left, right = _wider(box, plane.shape)
                part, ink = plane[top:bottom, left:right], mask[top:bottom, left:right]
                if _readable(part, ink, plane):
                    unsure.append((box, _dark_on_white(part, ink)))
    unsure = [(box, crop) for box, crop in unsure if not any(_within(box, other) for other in found)]
    if unsure and engine():
        found += _read(unsure, POSSIBLE if marked else SURE)
    return _apart([_wider(box, plane.shape) for box in found])


def words(plane: Plane, marked: bool) -> list[Box]:
    """What OCR reads in the whole picture as it would be shown, dark on light and light on dark."""
    if not engine() or min(plane.shape) < 8:
        return []
    low, high = (float(value) for value in np.percentile(plane.astype(np.float32), (0.5, 99.8)))
    if high <= low:
        low, high = float(plane.min()), float(plane.max())
    shown = np.clip((plane.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1) * 255
    scale = max(1, min(3, round(1200 / max(plane.shape))))
    picture = zoomed(255 - shown.astype(np.uint8), scale)
    found = []
    for text, box, confidence in _tesseract(picture, "11"):
        rows, columns = (box[1] - box[0]) / scale, (box[3] - box[2]) / scale
        if (
            _letters(text) >= 3
            and confidence >= (POSSIBLE if marked else SURE)
            and 5 <= rows <= 120
            and columns >= rows
        ):
            found.append((box[0] // scale, -(-box[1] // scale), box[2] // scale, -(-box[3] // scale)))
    return _apart([_wider(box, plane.shape) for box in found])


# ---- strokes --------------------------------------------------------------------------------------------------------


def _strokes(plane: Plane, marked: bool) -> list[tuple[Mask, bool]]:
    """Masks of what could be letters, and whether all their pixels have one value."""
    low, high = plane.min(), plane.max()
    if low == high:
        return []
    # The lowest value is air as well, which breaks into spots of any shape: OCR has to read it.
    found = [
        (plane == value, True) if value != low else ((plane == value) & _lit(plane), False)
        for value in _inks(plane, low, high)
    ]
    # Steps between neighbours: text has many, tissue few, noise as many everywhere.
    span = float(high) - float(low)
    values = plane.astype(np.float32)
    across = values[:, 1:] - values[:, :-1]
    steep = int(np.count_nonzero(np.abs(across, out=across) > 0.3 * span))
    if steep < LEAST_INK // 2 or steep > 0.2 * across.size:
        return found
    from scipy.ndimage import uniform_filter

    around = values - uniform_filter(values, 15, mode="nearest")
    for least in (0.3, 0.14) if marked else (0.3,):
        found += [(around > least * span, False), (around < -least * span, False)]
    return found


def _lit(plane: Plane) -> Mask:
    """Where something bright enough to write on in black is less than a block of 8 x 8 pixels away."""
    rows, columns = plane.shape
    even = np.pad(plane, ((0, -rows % 8), (0, -columns % 8)), mode="edge") if rows % 8 or columns % 8 else plane
    some = even[::2, ::2].astype(np.float32)
    by_rows = some.reshape(some.shape[0] // 4, 4, some.shape[1]).sum(1)
    means = by_rows.reshape(len(by_rows), some.shape[1] // 4, 4).sum(2) / 16
    low, high = float(plane.min()), float(plane.max())
    lit = np.pad(means > low + LEAST_CONTRAST * (high - low), 1)
    lit = lit[:-2] | lit[1:-1] | lit[2:]
    lit = lit[:, :-2] | lit[:, 1:-1] | lit[:, 2:]
    return lit.repeat(8, axis=1).repeat(8, axis=0)[:rows, :columns]


def _inks(plane: Plane, low: np.generic, high: np.generic) -> list[int]:
    """Values that stand out of the histogram: many pixels have exactly them, and hardly any the values beside them."""
    if plane.dtype.kind not in "iu" or int(high) - int(low) > 1 << 16:
        return []
    base = int(low)
    if 0 <= base <= 1 << 12:
        counts = np.bincount(plane.ravel(), minlength=base + 8)[base:]
    else:
        counts = np.bincount(plane.ravel().astype(np.int64) - base, minlength=8)
    likely = np.flatnonzero(counts >= LEAST_INK)
    if len(likely) == 0 or len(likely) > 4096:
        likely = likely[np.argsort(counts[likely])[-4096:]]
    sums = np.concatenate([[0], np.cumsum(counts)])
    left, right = np.maximum(likely - 8, 0), np.minimum(likely + 9, len(counts))
    beside = (sums[right] - sums[left] - counts[likely]) / np.maximum(right - left - 1, 1)
    stands_out = likely[(counts[likely] > 6 * beside + LEAST_INK) & (counts[likely] < 0.25 * plane.size)]
    best = stands_out[np.argsort(counts[stands_out])[::-1][:3]]
    ends = [value for value in (0, len(counts) - 1) if LEAST_INK <= counts[value] < 0.98 * plane.size]
    return [int(value) + base for value in dict.fromkeys([*best.tolist(), *ends])]


# ---- letters and lines ----------------------------------------------------------------------------------------------


def _lines_of(mask: Mask) -> list[tuple[Box, int]]:
    """Lines in a mask, and how many letters each has."""
    if np.count_nonzero(mask) < LEAST_INK:
        return []
    mask = _without_specks(mask)
    if np.count_nonzero(mask) < 3 * LETTER_HEIGHT[0]:
        return []
    from scipy.ndimage import label

    labels, many = label(mask, structure=_TOUCHING)
    if many < 3 or many > MOST_LETTERS:
        return []
    ink = np.flatnonzero(mask)
    of = labels.ravel()[ink]
    rows, columns = np.divmod(ink, mask.shape[1])
    order = np.argsort(of, kind="stable")  # keeps the rows of each in their order
    rows, columns = rows[order], columns[order]
    starts = np.flatnonzero(np.diff(of[order], prepend=0))
    stops = np.append(starts[1:], len(rows))
    top, bottom = rows[starts], rows[stops - 1] + 1
    first, last = np.minimum.reduceat(columns, starts), np.maximum.reduceat(columns, starts) + 1
    height, width, area = bottom - top, last - first, stops - starts
    like_letters = (
        (area >= LETTER_HEIGHT[0]) & (height >= LETTER_HEIGHT[0]) & (height <= LETTER_HEIGHT[1])
        & (width <= 2.2 * height) & (area >= 0.12 * height * width)
    )  # fmt: skip
    boxes = np.stack([top, bottom, first, last], axis=1)[like_letters]
    return _chained([(a, b, c, d) for a, b, c, d in boxes.tolist()])


def _without_specks(mask: Mask) -> Mask:
    """Without the pixels that have fewer than two others at most two pixels away: no letter has such, air many."""
    near = np.pad(mask, 2).view(np.uint8)
    rows = near[:-4] + near[1:-3] + near[2:-2] + near[3:-1] + near[4:]
    both = rows[:, :-4] + rows[:, 1:-3] + rows[:, 2:-2] + rows[:, 3:-1] + rows[:, 4:]
    return mask & (both > 2)


def _chained(letters: list[Box]) -> list[tuple[Box, int]]:
    """Letters beside each other, of like height and on one base line, as lines of at least three."""
    letters.sort(key=lambda box: box[2])
    chains: list[list[Box]] = []
    for box in letters:
        rows = box[1] - box[0]
        best = None
        for chain in chains:
            other = chain[-1]
            high = other[1] - other[0]
            gap = box[2] - other[3]
            shared = min(box[1], other[1]) - max(box[0], other[0])
            alike = 0.5 <= rows / high <= 2.0 and shared >= 0.6 * min(rows, high)
            level = abs(box[1] - other[1]) <= 0.35 * max(rows, high) or abs(box[0] - other[0]) <= 0.2 * max(rows, high)
            if alike and level and -0.3 * high <= gap <= 1.5 * max(rows, high) and (best is None or gap < best[0]):
                best = (gap, chain)
        if best is None:
            chains.append([box])
        else:
            best[1].append(box)
    found = []
    for chain in (chain for chain in chains if len(chain) >= 3):
        heights = np.array([box[1] - box[0] for box in chain])
        # Lines of text have letters of two or three heights; what tissue breaks into has any.
        typical = np.median(heights)
        even = np.mean(np.abs(heights - typical) <= 0.35 * typical)
        if even >= 0.6:
            found.append((_whole(_around(chain), letters), len(chain)))
    return found


def _whole(line: Box, letters: list[Box]) -> Box:
    """The line with the short words, initials and signs before and after it, on the same level."""
    rows = line[1] - line[0]
    level = [box for box in letters if box[0] >= line[0] - 0.4 * rows and box[1] <= line[1] + 0.4 * rows]
    grown = True
    while grown:
        beside = [box for box in level if box[2] <= line[3] + 2.5 * rows and box[3] >= line[2] - 2.5 * rows]
        wider = _around([line, *beside])
        grown, line = wider != line, wider
    return line


def _around(boxes: list[Box]) -> Box:
    return (
        min(box[0] for box in boxes), max(box[1] for box in boxes),
        min(box[2] for box in boxes), max(box[3] for box in boxes),
    )  # fmt: skip


def _within(inner: Box, outer: Box) -> bool:
    rows = min(inner[1], outer[1]) - max(inner[0], outer[0])
    columns = min(inner[3], outer[3]) - max(inner[2], outer[2])
    return rows > 0 and columns > 0 and rows * columns >= 0.7 * (inner[1] - inner[0]) * (inner[3] - inner[2])


def _wider(box: Box, shape: tuple[int, ...]) -> Box:
    """With a margin for accents, descenders and soft edges."""
    margin = 2 + (box[1] - box[0]) // 3
    return (
        max(box[0] - margin, 0), min(box[1] + margin, shape[0]),
        max(box[2] - margin, 0), min(box[3] + margin, shape[1]),
    )  # fmt: skip


def _apart(boxes: list[Box]) -> list[Box]:
    """Each box once, none that lies in another."""
    boxes = sorted(set(boxes), key=lambda box: (box[0] - box[1]) * (box[3] - box[2]))
    kept: list[Box] = []
    for box in boxes:
        if not any(o[0] <= box[0] and box[1] <= o[1] and o[2] <= box[2] and box[3] <= o[3] for o in kept):
            kept.append(box)
    return sorted(kept)


# ---- reading --------------------------------------------------------------------------------------------------------


def _read(unsure: list[tuple[Box, NDArray[np.uint8]]], least: float) -> list[Box]:
    """Those of the lines in which OCR reads at least three letters, all on one sheet, black on white."""
    rows: list[NDArray[np.uint8]] = []
    spans: list[tuple[int, int]] = []
    height, width = 24, 64
    for _, crop in unsure[:200]:
        scale = max(1, round(64 / crop.shape[0]))
        big = zoomed(crop, scale)
        spans.append((height, height + big.shape[0]))
        height += big.shape[0] + 32
        width = max(width, big.shape[1] + 64)
        rows.append(big)
    sheet = np.full((height, width), 255, np.uint8)
    for (top, bottom), big in zip(spans, rows, strict=True):
        sheet[top:bottom, 32 : 32 + big.shape[1]] = big
    letters = [0] * len(spans)
    for text, box, confidence in _tesseract(sheet, "6"):
        if confidence >= least:
            middle = (box[0] + box[1]) // 2
            for n, (top, bottom) in enumerate(spans):
                if top - 16 <= middle < bottom + 16:
                    letters[n] += _letters(text)
    return [box for (box, _), many in zip(unsure, letters, strict=False) if many >= 3]


def _readable(part: Plane, letters: Mask, plane: Plane) -> bool:
    """Do the letters differ from what is around them by enough to be seen? Air breaks into spots that do not."""
    if letters.all():
        return False
    values = part.astype(np.float32)
    span = float(plane.max()) - float(plane.min())
    return abs(float(np.median(values[letters]) - np.median(values[~letters]))) > LEAST_CONTRAST * span


def _dark_on_white(part: Plane, letters: Mask) -> NDArray[np.uint8]:
    """A line as a printed one: its letters black, what is around them white."""
    values = part.astype(np.float32)
    ink, paper = np.median(values[letters]), np.median(values[~letters])
    return (np.clip((values - ink) / (paper - ink or 1.0), 0, 1) * 255).astype(np.uint8)


def zoomed(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    from PIL import Image

    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _letters(text: str) -> int:
    """Letters and digits; one that stands for a syllable or more (Chinese, Japanese, Korean) is two."""
    return sum(letter.isalnum() + (letter.isalnum() and _wide(letter)) for letter in text)


def _tesseract(picture: NDArray[np.uint8], layout: str) -> list[tuple[str, Box, float]]:
    """Words, their boxes and confidences; of scripts without spaces, what stands together in a line. The text stays in
    this process's memory. BadInput when the engine fails: a picture that was not read is not one without text."""
    head = f"P5 {picture.shape[1]} {picture.shape[0]} 255\n".encode()
    command = [engine(), "stdin", "stdout", "--psm", layout, "--dpi", "150", "tsv"]
    if known := languages(engine()):
        command[3:3] = ["-l", "+".join(known)]
    try:
        done = subprocess.run(
            command,
            input=head + picture.tobytes(),
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env=os.environ | {"OMP_THREAD_LIMIT": "1"},
        )
    except (subprocess.TimeoutExpired, OSError):
        raise BadInput(ENGINE_FAILED, "the OCR engine did not answer") from None
    if done.returncode:
        raise BadInput(ENGINE_FAILED, f"the OCR engine ended with {done.returncode}")
    found: list[tuple[str, Box, float]] = []
    line = None
    for row in done.stdout.decode("utf-8", "replace").splitlines()[1:]:
        parts = row.split("\t")
        if len(parts) != 12 or parts[0] != "5" or not parts[11].strip():
            continue
        left, top, width, height = (int(part) for part in parts[6:10])
        word = parts[11], (top, top + height, left, left + width), float(parts[10])
        if found and line == parts[1:5] and _wide(found[-1][0][-1]) and _wide(word[0][0]):
            text, box, confidence = found.pop()
            word = text + word[0], _around([box, word[1]]), max(confidence, word[2])
        found.append(word)
        line = parts[1:5]
    return found


def _wide(letter: str) -> bool:
    return east_asian_width(letter) == "W"

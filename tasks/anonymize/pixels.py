"""Clean Pixel Data: text burned into the picture is found, blanked and looked for again.

Looked at: every picture that its own attributes mark (below), and of each series otherwise the first and every
`text_every`-th; where text is found in one picture of a series, all of that series are looked at (`Looks`).
Blanked: the boxes around the text, in all frames, with what is shown as black. Native pixel data keep their transfer
syntax; compressed, deflated and YBR ones come out as native explicit VR little endian (YBR as RGB).
Overlays in unused bits of the pixel data go as well. Doubt ends in quarantine, never in a release.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.anonymize import lettering, policy
from tasks.anonymize.lenient import FAILS
from tasks.anonymize.lettering import Box
from tasks.anonymize.marks import CLEANED, CLEAR, NO_ENGINE
from tasks.anonymize.params import Params
from tasks.domain.errors import BadInput
from tasks.store import checks, dicom
from tasks.store.dicom import Header, by_values

NATIVE = frozenset({dicom.IMPLICIT_LITTLE, dicom.EXPLICIT_LITTLE, dicom.EXPLICIT_BIG})
ROUNDS = 3
"""Times that text is looked for and blanked, before a picture counts as one that cannot be cleaned."""
MODALITIES = frozenset({"US", "ES", "XC", "OT", "SC", "RF", "XA", "GM", "SM", "OP", "DG"})
BIT_POSITIONS = frozenset(group << 16 | 0x0102 for group in range(0x6000, 0x6020, 2))
PLANAR, STORED, HIGH, SIGNED = 0x00280006, 0x00280101, 0x00280102, 0x00280103


@dataclass
class Looks:
    """Which files of each series are looked at; one for the files of a study, or of a batch, in their order."""

    every: int = 1
    seen: Counter[str] = field(default_factory=Counter)
    found: set[str] = field(default_factory=set)
    """Series in which text was found."""

    def wanted(self, series: str) -> bool:
        count = self.seen[series]
        self.seen[series] += 1
        return series in self.found or count % self.every == 0

    def missed(self, passed: Sequence[str | None]) -> list[int]:
        """Places of files that were passed over (their series, else None) before text was found in their series."""
        return [n for n, series in enumerate(passed) if series in self.found]


@dataclass(frozen=True)
class Looked:
    data: bytes
    """The file to go on with: the same, or one with blanked pixels."""
    outcome: str


@by_values(
    0x00080005, 0x00080008, dicom.SOP_CLASS_UID, 0x00080060, 0x00080064, dicom.SAMPLES_PER_PIXEL, 0x00280301
)  # fmt: skip
def risk(header: Header) -> str:
    """'marked': the file says that text is or may be in its pixels. 'likely': such pictures often have some."""
    kind = policy.kind_of(header.sop_class)
    image_type = header.text(0x00080008).upper()
    screen = "SCREEN" in image_type or (kind is not None and kind[1] == "secondary_capture")
    if header.text(0x00280301).upper() == "YES" or screen or header.text(0x00080064):
        return "marked"
    colours = header.integer(dicom.SAMPLES_PER_PIXEL) == 3
    derived = image_type.split("\\")[1:2] == ["SECONDARY"]
    return "likely" if colours or derived or header.text(0x00080060).upper() in MODALITIES else ""


@by_values(dicom.SOP_CLASS_UID)
def _is_picture(header: Header) -> bool:
    kind = policy.kind_of(header.sop_class)
    return kind is not None and kind[1] in ("image", "secondary_capture")


def look(data: bytes, header: Header, params: Params, looks: Looks | None) -> Looked | None:
    """Look for text in a picture and blank it; None when this one is not looked at. BadInput where it stays unclear."""
    if header.pixel is None or not _is_picture(header):
        return None
    overlay = any(_overlay_bits(header))
    danger = risk(header)
    wanted = looks is not None and looks.wanted(header.series_uid)
    if not params.clean_pixel_data or not (danger or wanted or overlay):
        return None
    if danger == "marked" and not lettering.engine():
        raise BadInput("no_text_engine", "its attributes say that text may be burned in, and no OCR is installed")
    try:
        looked = _cleaned(data, header, danger == "marked")
    except _Undecodable:
        if danger == "marked" or overlay:
            raise BadInput("undecodable_pixels", "text may be burned in, and the pixels cannot be decoded") from None
        return None
    if looked.outcome == CLEANED and looks is not None:
        looks.found.add(header.series_uid)
    if header.text(0x00280301).upper() == "YES" and looked.outcome == CLEAR:
        raise BadInput("burned_in_annotation", "the file says that text is burned in, and none was found")
    return looked


HEADS = frozenset({"HEAD", "BRAIN", "FACE", "SKULL", "HEADNECK", "NECK", "ORBIT", "EYE", "SINUS", "JAW", "WHOLEBODY"})
HEAD_CODES = (b"69536005", b"12738006", b"89545001", b"89546000", b"T-D1100", b"T-A0100", b"T-D1200", b"38266002")


def shows_a_head(header: Header) -> bool:
    """By the body part that the file names, in words or in code."""
    named = set(header.text(0x00180015).upper().replace("_", "").replace(" ", "").split("\\"))
    said = {word for tag in (0x00081030, 0x0008103E, 0x00181030) for word in header.text(tag).upper().split()}
    coded = header.values.get(0x00082218, b"")
    brain = said & {"BRAIN", "SKULL", "FACE", "CRANIAL", "SCHÄDEL"}
    return bool(named & HEADS or brain or any(code in coded for code in HEAD_CODES))


class _Undecodable(Exception):
    """These pixels cannot be read here."""


def _cleaned(data: bytes, header: Header, marked: bool) -> Looked:
    native, at = data, header
    if header.transfer_syntax not in NATIVE or header.text(dicom.PHOTOMETRIC).startswith("YBR"):
        shown = _decoded(data)
        native, at = shown, checks.checked_header(shown)
    picture = _Picture(native, at, marked)
    changed = picture.without_overlays()
    text = picture.lines(marked)
    if marked and not text:
        text = picture.words(True)
    changed |= bool(text)
    for _ in range(ROUNDS):
        if not text:
            break
        picture.blank(text)
        # The second detection has eyes of its own, OCR over the whole picture, and believes more easily.
        text = picture.lines(marked) + picture.words(True)
    if text and (picture.words(False) or picture.lines(marked)):
        raise BadInput("burned_in_text", f"text is still there after it was blanked {ROUNDS} times")
    engine = lettering.engine()
    if changed:
        return Looked(_said_clean(picture.written()), CLEANED if engine else NO_ENGINE)
    return Looked(data, CLEAR if engine else NO_ENGINE)


def _decoded(data: bytes) -> bytes:
    """The file with native pixels, explicit VR little endian, YBR as RGB."""
    import pydicom
    from pydicom.pixels import pixel_array

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(data))
            if (
                dataset.file_meta.TransferSyntaxUID.is_compressed
                and not dataset.file_meta.TransferSyntaxUID.is_deflated
            ):
                dataset.decompress(generate_instance_uid=False)
            elif str(dataset.PhotometricInterpretation).startswith("YBR"):
                values = pixel_array(io.BytesIO(data))
                dataset.set_pixel_data(values, "RGB", dataset.BitsStored, generate_instance_uid=False)
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            out = io.BytesIO()
            pydicom.dcmwrite(out, dataset, implicit_vr=False, little_endian=True, enforce_file_format=False)
    except (*FAILS, RuntimeError, MemoryError):
        raise _Undecodable from None
    return out.getvalue()


def _overlay_bits(header: Header) -> list[int]:
    """Overlays of the old kind lie in bits of the pixel data that hold no pixels; their places."""
    places = header.values.keys() & BIT_POSITIONS
    without_data = (tag for tag in places if tag - 0x0102 + 0x3000 not in header.values)
    return [place for tag in without_data if (place := header.integer(tag))]


class _Picture:
    """The native pixel data of one file, as an array that can be written to: frames, rows, columns, samples."""

    def __init__(self, data: bytes, header: Header, marked: bool) -> None:
        self.data, self.header, self.marked = data, header, marked
        rows, columns = header.integer(dicom.ROWS), header.integer(dicom.COLUMNS)
        samples, bits = header.integer(dicom.SAMPLES_PER_PIXEL) or 1, header.integer(dicom.BITS_ALLOCATED)
        try:
            frames = int(header.text(dicom.NUMBER_OF_FRAMES) or 1)
        except ValueError:
            raise _Undecodable from None
        if header.pixel is None or not rows or not columns or bits not in (8, 16, 32) or header.pixel[3] or frames < 1:
            raise _Undecodable
        tag, start, stop, _ = header.pixel
        if tag != 0x7FE00010 or stop - start < frames * rows * columns * samples * bits // 8:
            raise _Undecodable
        self.start = start
        signed = bool(header.integer(SIGNED))
        kind = f"{'>' if header.big_endian else '<'}{'i' if signed else 'u'}{bits // 8}"
        flat = np.frombuffer(data, kind, frames * rows * columns * samples, start)
        if samples > 1 and header.integer(PLANAR):
            self.values = flat.reshape(frames, samples, rows, columns).transpose(0, 2, 3, 1)
        else:
            self.values = flat.reshape(frames, rows, columns, samples)
        self.changed = False

    def planes(self) -> list[lettering.Plane]:
        """What there is to look at, colours as brightness and as colourfulness. Of many unmarked frames the first, the
        middle and the last, and what all have in common: the darkest and the brightest that each pixel ever is."""
        found: list[lettering.Plane] = []
        palette = self._palette()
        frames = list(self.values)
        if len(frames) > 3 and not self.marked:
            frames = [frames[0], frames[len(frames) // 2], frames[-1], self.values.min(0), self.values.max(0)]
        for frame in frames:
            if palette is not None:
                found.append(palette[np.clip(frame[:, :, 0].astype(np.int64) - self._first(), 0, len(palette) - 1)])
            elif frame.shape[2] == 1:
                found.append(frame[:, :, 0].astype(frame.dtype.newbyteorder("="), copy=False))
            else:
                found.append(frame.max(2).astype(frame.dtype.newbyteorder("=")))
                spread = frame.max(2).astype(np.int32) - frame.min(2)
                if spread.any():
                    found.append(spread)
        return found

    def lines(self, doubt: bool) -> list[Box]:
        return _all(lettering.lines(plane, doubt) for plane in self.planes())

    def words(self, doubt: bool) -> list[Box]:
        return _all(lettering.words(plane, doubt) for plane in self.planes())

    def blank(self, boxes: list[Box]) -> None:
        self._own()
        for top, bottom, left, right in boxes:
            self.values[:, top:bottom, left:right, :] = self._black()

    def without_overlays(self) -> bool:
        """Clear the bits that hold no pixels, where overlays were put into them."""
        stored, high = self.header.integer(STORED), self.header.integer(HIGH)
        bits = self.values.dtype.itemsize * 8
        if not _overlay_bits(self.header) or stored is None or high is None or not 0 < stored <= high + 1 <= bits:
            return False
        self._own()
        up, down = bits - 1 - high, bits - stored
        # Left and right again: a signed value gets its sign back, and whatever lay above the pixel or below it goes.
        self.values[...] = (self.values << up) >> down << (high + 1 - stored)
        return True

    def written(self) -> bytes:
        values = self.values
        if self.values.shape[3] > 1 and self.header.integer(PLANAR):
            values = values.transpose(0, 3, 1, 2)
        raw = np.ascontiguousarray(values).tobytes()
        return b"".join([self.data[: self.start], raw, self.data[self.start + len(raw) :]])

    def _own(self) -> None:
        if not self.changed:
            self.values, self.changed = self.values.copy(), True

    def _black(self) -> int:
        if self.header.text(dicom.PHOTOMETRIC) == "MONOCHROME1":
            return int(self.values.max())
        palette = self._palette()
        if palette is not None:
            return int(palette.argmin()) + self._first()
        return int(self.values.min()) if self.values.shape[3] == 1 else 0

    def _first(self) -> int:
        described = self.header.values.get(0x00281101, b"")
        return (
            struct.unpack_from(">h" if self.header.big_endian else "<h", described, 2)[0] if len(described) >= 6 else 0
        )

    def _palette(self) -> NDArray[np.int32] | None:
        """The brightness of each entry of a palette."""
        if self.header.text(dicom.PHOTOMETRIC) != "PALETTE COLOR":
            return None
        order = ">" if self.header.big_endian else "<"
        tables, layout = [], self.header.layout or checks.checked_header(self.data).layout
        for number in (0x00281201, 0x00281202, 0x00281203):
            place = next((element for element in layout if element[0] == number), None)
            raw = self.data[place[3] : place[4]] if place else b""
            tables.append(np.frombuffer(raw, f"{order}u2", len(raw) // 2).astype(np.int32))
        length = min(map(len, tables))
        return None if length == 0 else np.max([table[:length] for table in tables], axis=0)


def _all(boxes: object) -> list[Box]:
    return sorted({box for found in boxes for box in found})  # type: ignore[attr-defined]


def _said_clean(data: bytes) -> bytes:
    """Burned In Annotation says NO from now on; the mark is the rewriter's, here the old word only loses its value."""
    header = checks.checked_header(data)
    for tag, _, _, value, stop, _ in header.layout:
        if tag == 0x00280301 and stop - value >= 2:
            return data[:value] + b"NO".ljust(stop - value) + data[stop:]
    return data

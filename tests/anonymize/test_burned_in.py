"""Names planted in pixels, in the photometric interpretations and transfer syntaxes that scanners and PACS write."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from scipy.ndimage import gaussian_filter

from tasks.anonymize import Params, anonymize_tree, lettering, release
from tasks.anonymize.pixels import Looks
from tasks.domain.errors import BadInput
from tasks.keys import Keys

SIZE = 160
NAME = "OBERDORFER, ANNA 19480612"
CHINESE = "/usr/share/tesseract-ocr/5/tessdata/chi_sim.traineddata"
CHINESE_FONT = "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc"
Bytes = Callable[[Dataset], bytes]
Read = Callable[[bytes], FileDataset]


def anatomy(seed: int = 3) -> NDArray[np.float64]:
    """Something round with things in it, smooth, with noise: 0 to about 1."""
    pick = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    body = ((x / 0.42) ** 2 + (y / 0.34) ** 2 < 1) * 0.4
    for _ in range(10):
        cy, cx, r = *pick.uniform(-0.25, 0.25, 2), pick.uniform(0.03, 0.1)
        body += ((x - cx) ** 2 + (y - cy) ** 2 < r * r) * pick.uniform(-0.2, 0.5)
    return np.clip(gaussian_filter(body, 1) + pick.normal(0, 0.015, (SIZE, SIZE)), 0, 1.2) / 1.3


def written(text: str = NAME, where: tuple[int, int] = (4, 4), size: int = 11) -> NDArray[np.bool_]:
    picture = Image.new("L", (SIZE, SIZE))
    drawing = ImageDraw.Draw(picture)
    drawing.fontmode = "1"
    drawing.text(where, text, fill=255, font=ImageFont.load_default(size))
    return np.asarray(picture) > 127


def planted(ds: FileDataset, kind: str, text: bool = True, seed: int = 3) -> FileDataset:
    """`ds` with a picture of `kind`, and the name in it."""
    picture, ink = anatomy(seed), written() if text else np.zeros((SIZE, SIZE), bool)
    ds.Rows = ds.Columns = SIZE
    if kind in ("RGB", "YBR"):
        colours = np.repeat((picture * 200).astype(np.uint8)[..., None], 3, 2)
        colours[ink] = (255, 255, 0)
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        if kind == "YBR":
            colours = pydicom.pixels.convert_color_space(colours, "RGB", "YBR_FULL")
            ds.PhotometricInterpretation = "YBR_FULL"
        ds.PixelData = colours.tobytes()
        return ds
    values = (picture * 900).astype("<u2")
    values[ink] = 4095
    if kind == "MONOCHROME1":
        values, ds.PhotometricInterpretation = (4095 - values).astype("<u2"), "MONOCHROME1"
    ds.PixelData = values.tobytes()
    return ds


def encoded(ds: FileDataset, syntax: pydicom.uid.UID) -> FileDataset:
    if syntax in (RLELossless, JPEG2000Lossless):
        ds.compress(syntax, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


def shown(ds: FileDataset) -> NDArray[np.generic]:
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=False)
    return pydicom.pixels.pixel_array(io.BytesIO(out.getvalue()))


CASES = [
    ("MONOCHROME2", pydicom.uid.ExplicitVRLittleEndian), ("MONOCHROME2", ImplicitVRLittleEndian),
    ("MONOCHROME2", ExplicitVRBigEndian), ("MONOCHROME2", RLELossless), ("MONOCHROME2", JPEG2000Lossless),
    ("MONOCHROME1", pydicom.uid.ExplicitVRLittleEndian), ("MONOCHROME1", JPEG2000Lossless),
    ("RGB", pydicom.uid.ExplicitVRLittleEndian), ("RGB", RLELossless), ("RGB", JPEG2000Lossless),
    ("YBR", pydicom.uid.ExplicitVRLittleEndian), ("YBR", RLELossless),
]  # fmt: skip


@pytest.mark.needs("tesseract")
@pytest.mark.parametrize(("kind", "syntax"), CASES, ids=[f"{kind}-{syntax.name}" for kind, syntax in CASES])
def test_a_burned_in_name_is_blanked(
    mr: Callable[..., FileDataset],
    as_bytes: Bytes,
    read: Read,
    keys: Keys,
    params: Params,
    kind: str,
    syntax: pydicom.uid.UID,
) -> None:
    source = encoded(planted(mr(), kind), syntax)
    source.BurnedInAnnotation = "YES"
    done = release(as_bytes(source), "local", keys, params)
    out = read(done.data)
    ink = written()
    before, after = shown(source).astype(int), shown(out).astype(int)
    dark = after.max() if kind == "MONOCHROME1" else after.min()
    assert done.pixels == "cleaned" and (after[ink] == dark).all()
    assert out.BurnedInAnnotation == "NO"
    assert "113101" in [item.CodeValue for item in out.DeidentificationMethodCodeSequence]
    below = np.s_[40:]  # the name is above: what is below stays, value by value (YBR: but for rounding)
    assert np.abs(after[below] - before[below]).max() <= (3 if kind == "YBR" else 0)


def test_text_in_a_picture_that_says_nothing(
    mr: Callable[..., FileDataset], as_bytes: Bytes, keys: Keys, params: Params, tmp_path: Any
) -> None:
    """Nothing marks the series; its first picture tells, and then all of it is looked at. The other one stays."""
    for series, text in (("1", True), ("2", False)):
        for n in range(1, 4):
            data = as_bytes(planted(mr(series=series, instance=n), "MONOCHROME2", text, seed=n))
            (tmp_path / "in").mkdir(exist_ok=True)
            (tmp_path / "in" / f"{series}-{n}.dcm").write_bytes(data)
    rows = anonymize_tree(tmp_path / "in", tmp_path / "out", keys, params, "local")
    assert [row["pixels"] for row in rows[:3]] == ["cleaned"] * 3 if lettering.engine() else ["no_engine"] * 3
    assert [row["pixels"] for row in rows[3:]] == ["clear" if lettering.engine() else "no_engine", *["not_looked"] * 2]
    for n, row in enumerate(rows):
        out = pydicom.dcmread(tmp_path / "out" / row["target"])
        assert out.pixel_array[written()].max() < 2000
        codes = [item.CodeValue for item in out.DeidentificationMethodCodeSequence]
        assert ("113101" in codes) == (row["pixels"] in ("cleaned", "clear")), n


@pytest.mark.needs("tesseract")
def test_one_that_says_so_and_shows_nothing_is_held_back(
    mr: Callable[..., FileDataset], as_bytes: Bytes, keys: Keys, params: Params
) -> None:
    source = planted(mr(), "MONOCHROME2", text=False)
    source.BurnedInAnnotation = "YES"
    with pytest.raises(BadInput) as caught:
        release(as_bytes(source), "local", keys, params)
    assert caught.value.reason == "burned_in_annotation"


@pytest.mark.needs("tesseract", CHINESE, CHINESE_FONT)
def test_a_name_in_soft_chinese_letters_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(paper).text((6, 8), "姓名 陈建国", fill=255, font=ImageFont.truetype(CHINESE_FONT, 16))
    ink = np.asarray(paper) / 255
    picture = np.round(anatomy() * 900 * (1 - ink) + 880 * ink).astype(np.uint16)
    monkeypatch.setattr(lettering, "languages", lambda program: ("eng", "chi_sim"))
    [(top, bottom, left, right)] = lettering.lines(picture, marked=True)
    rows, columns = np.nonzero(ink > 0.5)
    assert top <= rows.min() and rows.max() < bottom and left <= columns.min() and columns.max() < right
    monkeypatch.setattr(lettering, "languages", lambda program: ("eng",))
    assert not lettering.lines(picture, marked=True)  # what reads Latin alone sees strokes


def test_an_engine_that_fails_has_read_nothing(
    mr: Callable[..., FileDataset], as_bytes: Bytes, keys: Keys, params: Params, monkeypatch: Any
) -> None:
    """A picture that was not read is not one without text."""
    monkeypatch.setattr(lettering, "engine", lambda: "/bin/false")
    source = planted(mr(), "MONOCHROME2", text=False)
    source.ImageType = ["DERIVED", "PRIMARY", "SCREEN"]
    with pytest.raises(BadInput) as caught:
        release(as_bytes(source), "local", keys, params)
    assert caught.value.reason == "text_engine_failed"


@pytest.mark.needs("tesseract")
def test_the_palette_is_known_of_a_file_like_those_before(
    mr: Callable[..., FileDataset], as_bytes: Bytes, read: Read, keys: Keys, params: Params
) -> None:
    """Text is in the colours, not in their numbers."""
    brightness = np.random.default_rng(5).permutation(256).astype("<u2") * 257
    number_of = np.argsort(brightness).astype(np.uint8)
    looks = Looks(every=5)
    for n in range(5):
        ds = planted(mr(instance=n + 1), "MONOCHROME2", seed=n)
        looks.seen[ds.SeriesInstanceUID] = n + 1  # the fifth is looked at
        grey = np.clip(np.frombuffer(ds.PixelData, "<u2") // 16, 0, 255)
        ds.PhotometricInterpretation = "PALETTE COLOR"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = number_of[grey].tobytes()
        for colour in ("Red", "Green", "Blue"):
            setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(ds, f"{colour}PaletteColorLookupTableData", brightness.tobytes())
        done = release(as_bytes(ds), "local", keys, params, looks)
        assert done.pixels == ("cleaned" if n == 4 else "not_looked"), n
    assert brightness[read(done.data).pixel_array][written()].max() == 0


def test_without_an_engine_nothing_is_claimed(
    mr: Callable[..., FileDataset], as_bytes: Bytes, read: Read, keys: Keys, params: Params, monkeypatch: Any
) -> None:
    from tasks.anonymize.pixels import Looks

    monkeypatch.setattr(shutil, "which", lambda name: None)
    lettering.engine.cache_clear()
    try:
        done = release(as_bytes(planted(mr(), "MONOCHROME2")), "local", keys, params, Looks())
        out = read(done.data)
        assert done.pixels == "no_engine" and out.DeidentificationMethod[1] == "pixels searched without OCR"
        assert "113101" not in [item.CodeValue for item in out.DeidentificationMethodCodeSequence]
        assert out.pixel_array[written()].max() < 2000  # ink of one value is found without reading it
        source = planted(mr(), "MONOCHROME2")
        source.BurnedInAnnotation = "YES"
        with pytest.raises(BadInput) as caught:
            release(as_bytes(source), "local", keys, params)
        assert caught.value.reason == "no_text_engine"
    finally:
        monkeypatch.undo()
        lettering.engine.cache_clear()


def test_an_overlay_in_unused_bits_goes(
    mr: Callable[..., FileDataset], as_bytes: Bytes, read: Read, keys: Keys, params: Params
) -> None:
    source = planted(mr(), "MONOCHROME2", text=False)
    values = np.frombuffer(source.PixelData, "<u2").reshape(SIZE, SIZE) | (written().astype("<u2") << 12)
    source.PixelData = values.tobytes()
    source.add_new(0x60000100, "US", 16)
    source.add_new(0x60000102, "US", 12)
    out = read(release(as_bytes(source), "local", keys, params).data)
    assert (np.frombuffer(out.PixelData, "<u2") < 4096).all() and 0x60000102 not in out
    assert (np.frombuffer(out.PixelData, "<u2") == (values & 0xFFF).ravel()).all()


def test_heads_are_refused_where_faces_must_go(
    mr: Callable[..., FileDataset], as_bytes: Bytes, keys: Keys, options: dict[str, Any]
) -> None:
    params = Params(**(options | {"clean_recognizable_visual_features": True}))
    source = mr()
    source.BodyPartExamined = "HIP"
    assert release(as_bytes(source), "local", keys, params).data
    source.BodyPartExamined = "HEAD"
    with pytest.raises(BadInput) as caught:
        release(as_bytes(source), "local", keys, params)
    assert caught.value.reason == "recognizable_features"

from __future__ import annotations

import io
from copy import deepcopy

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from scans import classic, data_of, enhanced

from tasks.domain.errors import BadInput
from tasks.domain.volume import Volume
from tasks.store.series import measure, read_stacks, volume


@pytest.fixture
def small() -> Volume:
    rng = np.random.default_rng(8)
    axes, _ = np.linalg.qr(np.eye(3) + rng.normal(0, 0.08, (3, 3)))
    axes = axes * np.sign(np.diag(axes))
    affine = np.eye(4)
    affine[:3, :3] = np.array([axes[1], -axes[2], axes[0]]).T * [4.2, 0.9, 0.9]
    affine[:3, 3] = [-40.0, 12.0, 30.0]
    return Volume(rng.integers(0, 4000, (9, 20, 24)).astype(np.uint16), affine)


def same_place(found: Volume, wanted: Volume) -> None:
    """Equal as images in the patient: the stack may run the other way."""
    corners = np.array([[0, 0, 0], [0, 0, 23], [0, 19, 0], [8, 0, 0], [8, 19, 23]])
    for corner in corners:
        index = found.to_index(wanted.to_lps(corner)).round(3)
        assert np.allclose(index, index.round(), atol=0.01)
        assert found.array[tuple(index.round().astype(int))] == pytest.approx(wanted.array[tuple(corner)])


def only(entries: list[tuple[str, bytes]]) -> Volume:
    stacks, unusable = read_stacks(entries)
    assert not unusable and len(stacks) == 1
    return volume(stacks[0])[0]


def test_slices_are_ordered_by_position_whatever_their_numbers_say(small: Volume) -> None:
    same_place(only(classic(small, "t1")), small)
    same_place(only(classic(small, "t1")[::-1]), small)


def test_enhanced_multi_frame_with_a_rescale_of_each_frame(small: Volume) -> None:
    even = Volume((small.array // 2 * 2).astype(np.uint16), small.affine)
    stacks, _ = read_stacks(enhanced(even, "fluid", scale=2.0))
    same_place(volume(stacks[0])[0], even)
    assert stacks[0].physics["tr_ms"] == 4200 and stacks[0].physics["te_ms"] == 50
    assert stacks[0].physics["ti_ms"] == 160 and stacks[0].physics["fat_suppressed"]


@pytest.mark.parametrize("how", ["frames", "shared", "root", "empty items", "two files"])
def test_enhanced_frames_say_what_they_say_in_any_place(how: str, small: Volume) -> None:
    even = Volume((small.array // 2 * 2).astype(np.uint16), small.affine)
    ((name, data),) = enhanced(even, "fluid", scale=2.0)
    whole = pydicom.dcmread(io.BytesIO(data))
    shared, frames = whole.SharedFunctionalGroupsSequence[0], whole.PerFrameFunctionalGroupsSequence
    entries = []
    if how == "frames":
        for group in frames:
            group.update(deepcopy(shared))
        del whole.SharedFunctionalGroupsSequence
    elif how in ("shared", "empty items"):
        for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence"):
            setattr(shared, keyword, frames[0][keyword].value)
            for group in frames:
                setattr(group, keyword, [Dataset()] if how == "empty items" else [])
    elif how == "root":
        for keyword in ("MRTimingAndRelatedParametersSequence", "MREchoSequence", "MRModifierSequence"):
            del shared[keyword]
        whole.RepetitionTime, whole.EchoTime, whole.InversionTime = 4200, 50, 160
    else:  # a concatenation
        size = len(whole.PixelData) // len(frames)
        for number, (start, end) in enumerate(((0, 3), (3, len(frames)))):
            part = deepcopy(whole)
            part.PerFrameFunctionalGroupsSequence, part.NumberOfFrames = frames[start:end], end - start
            part.PixelData = whole.PixelData[start * size : end * size]
            part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = f"{whole.SOPInstanceUID}.{number}"
            entries.append((f"{number}.dcm", data_of(part)))
    ((stack,), none) = read_stacks(entries or [(name, data_of(whole))])
    assert not none
    same_place(volume(stack)[0], even)
    assert [stack.physics[time] for time in ("tr_ms", "te_ms", "ti_ms")] == [4200, 50, 160]
    assert stack.physics["fat_suppressed"]


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_transfer_syntaxes(small: Volume, syntax: str) -> None:
    def squeeze(number: int, dataset: pydicom.FileDataset) -> pydicom.FileDataset:
        dataset.compress(syntax, generate_instance_uid=False)
        return dataset

    larger = Volume(np.tile(small.array, (1, 4, 4)), small.affine)  # openjpeg wants more than a few pixels
    found = only(classic(larger, "t1", change=squeeze))
    assert np.array_equal(found.array, larger.array) or np.array_equal(found.array[::-1], larger.array)


def test_big_endian_signed_and_rescaled(small: Volume) -> None:
    signed = Volume(small.array.astype(np.int16) - 2000, small.affine)

    def turn(number: int, dataset: pydicom.FileDataset) -> pydicom.FileDataset:
        dataset.PixelRepresentation, dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0.5, 10
        dataset.PixelData = signed.array[number].astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, dataset, little_endian=False, implicit_vr=False, enforce_file_format=False)
        return pydicom.dcmread(io.BytesIO(buffer.getvalue()), force=True)

    found = only(classic(small, "t1", change=turn))
    same_place(found, Volume(signed.array * 0.5 + 10, small.affine))


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_jp2klossless.dcm",
             "MR_small_jpeg_ls_lossless.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm", "MR_small_padded.dcm"],
)  # fmt: skip
def test_real_files_of_one_image_agree_in_every_transfer_syntax(name: str) -> None:
    from tasks.store.frames import decode

    def plane(which: str) -> np.ndarray:
        path = get_testdata_file(which, download=False)
        assert path is not None, f"{which} does not come with this pydicom"
        with open(path, "rb") as handle:
            stacks, _ = read_stacks([(which, handle.read())])
        return decode(stacks[0].frames[0])

    assert np.array_equal(plane(name), plane("MR_small.dcm"))


def test_one_missing_slice_is_interpolated_and_counted(small: Volume) -> None:
    smooth = Volume(np.arange(9, dtype=np.uint16)[:, None, None] * 100 + np.zeros((9, 20, 24), np.uint16), small.affine)
    entries = classic(smooth, "t1", change=lambda number, dataset: None if number == 4 else dataset)
    stacks, _ = read_stacks(entries)
    found, measured, frames = volume(stacks[0])
    assert measured.missing == 1 and len(frames) == 8
    same_place(found, smooth)


def test_two_missing_slices_are_rejected_with_the_numbers(small: Volume) -> None:
    entries = classic(small, "t1", change=lambda number, dataset: None if number in (3, 4) else dataset)
    stacks, _ = read_stacks(entries)
    with pytest.raises(BadInput, match=r"missing_slices: 2 of 9 at 4\.20 mm"):
        volume(stacks[0])


def moved(millimetres: float, across: bool = False):
    def change(number: int, dataset: pydicom.FileDataset) -> pydicom.FileDataset:
        if number == 5:
            axes = np.array([float(v) for v in dataset.ImageOrientationPatient])
            away = axes[:3] if across else np.cross(axes[:3], axes[3:])
            place = np.array([float(v) for v in dataset.ImagePositionPatient]) + away * millimetres
            dataset.ImagePositionPatient = [f"{v:.6f}" for v in place]
        return dataset

    return change


def test_uneven_slices_within_tolerance_are_evened_out_and_beyond_it_rejected(small: Volume) -> None:
    stacks, _ = read_stacks(classic(small, "t1", change=moved(0.8)))
    found, measured, _ = volume(stacks[0])
    assert measured.uneven_mm == pytest.approx(0.8, abs=0.01)
    assert found.array.shape == small.array.shape and found.array.dtype == np.float32
    stacks, _ = read_stacks(classic(small, "t1", change=moved(1.9)))
    with pytest.raises(BadInput, match=r"uneven_slices: 1\.90 mm off a gap of 4\.20 mm"):
        volume(stacks[0])


def test_a_slice_beside_the_line_is_rejected(small: Volume) -> None:
    stacks, _ = read_stacks(classic(small, "t1", change=moved(3.0, across=True)))
    with pytest.raises(BadInput, match=r"drifting_slices: 3\.0\d mm"):
        volume(stacks[0])


def test_a_sheared_stack_keeps_its_true_affine(small: Volume) -> None:
    affine = small.affine.copy()
    affine[:3, 0] += 0.9 * affine[:3, 2] / 0.9
    sheared = Volume(small.array, affine)
    stacks, _ = read_stacks(classic(sheared, "t1"))
    found, measured, _ = volume(stacks[0])
    assert measured.tilt_deg == pytest.approx(12.1, abs=0.2)
    same_place(found, sheared)


def test_exact_duplicates_are_dropped_and_different_images_at_one_place_rejected(small: Volume) -> None:
    entries = classic(small, "t1")
    first = pydicom.dcmread(io.BytesIO(entries[3][1]))
    first.SOPInstanceUID = first.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    stacks, _ = read_stacks([*entries, ("copy", data_of(first))])
    assert measure(stacks[0])[1].duplicates == 1
    first.PixelData = bytes(len(first.PixelData))
    stacks, _ = read_stacks([*entries, ("other", data_of(first))])
    with pytest.raises(BadInput, match="duplicate_positions"):
        measure(stacks[0])


def test_a_scout_of_three_planes_is_three_stacks(small: Volume) -> None:
    def turn(number: int, dataset: pydicom.FileDataset) -> pydicom.FileDataset:
        axes = [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]][number % 3]
        dataset.ImageOrientationPatient = axes
        dataset.ImagePositionPatient = [number * 5.0, number * 5.0, number * 5.0]
        return dataset

    stacks, _ = read_stacks(classic(small, "t1", change=turn))
    assert sorted(len(stack.frames) for stack in stacks) == [3, 3, 3]


def test_echoes_and_time_points_of_one_series_are_stacks_of_their_own(small: Volume) -> None:
    def echo(number: int, dataset: pydicom.FileDataset) -> pydicom.FileDataset:
        dataset.EchoTime = 80
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.80.{number}"
        return dataset

    stacks, _ = read_stacks(classic(small, "t1") + classic(small, "t1", change=echo))
    assert sorted(stack.physics["te_ms"] for stack in stacks) == [11, 80]

    def later(number: int, dataset: pydicom.FileDataset) -> pydicom.FileDataset:
        dataset.AcquisitionNumber = 2
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.81.{number}"
        return dataset

    stacks, _ = read_stacks(classic(small, "contrast") + classic(small, "contrast", change=later))
    assert [len(stack.frames) for stack in stacks] == [9, 9]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
        ({"Modality": "CT"}, "modality CT is not MR"),
        ({"SamplesPerPixel": 3}, "colour"),
    ],
)
def test_what_is_no_stack_is_listed_with_its_reason(small: Volume, change: dict, reason: str) -> None:
    stacks, unusable = read_stacks(classic(small, "t1", **change))
    assert not stacks
    assert reason in unusable[0].reason and unusable[0].frames == 9


def test_files_that_are_broken_do_not_stop_the_others(small: Volume) -> None:
    entries = classic(small, "t1")
    stacks, unusable = read_stacks([("a", b""), ("b", b"not dicom at all"), ("c", entries[0][1][:200]), *entries])
    assert len(stacks) == 1 and len(stacks[0].frames) == 9
    assert len(unusable) >= 2
    cut = pydicom.dcmread(io.BytesIO(entries[2][1]))
    cut.PixelData = cut.PixelData[:100]
    stacks, _ = read_stacks([*entries[:2], ("cut", data_of(cut)), *entries[3:]])
    with pytest.raises(BadInput, match="truncated_pixels: 100 of 960 bytes"):
        volume(stacks[0])

"""Series as scanners of several makers write them, from bodies of another making, to hips."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tissues
from dialects import DIALECTS, Files, encoded, multiframe, written
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from torsos import Person, person

from tasks.domain.volume import Volume
from tasks.standardize import process
from tasks.standardize.locate import locate
from tasks.standardize.params import Params
from tasks.standardize.roles import told
from tasks.store import archives, hips
from tasks.store.frames import decode
from tasks.store.items import Item
from tasks.store.series import Stack, measure, read_stacks, volume

STUDY = "1.2.826.0.1.77"
Seen = tuple[Person, dict[str, Volume]]


@pytest.fixture(scope="module")
def seen() -> Seen:
    """A stranger in a wide oblique field of view: T1, STIR and, thinner, after contrast."""
    rng = np.random.default_rng(31)
    who = person(rng, 1.0, {"L": "dead", "R": "sound"})
    middle = np.mean([joint.centre for joint in who.joints.values()], axis=0)
    thick = tissues.Slab("coronal", (380.0, 380.0), (112, 112), 13, 4.6, 4.0, middle, (7.0, -4.0, 5.0))
    thin = tissues.Slab("coronal", (340.0, 380.0), (84, 94), 30, 1.9, 1.9, middle, (7.0, -4.0, 5.0))
    t1, stir = tissues.scanned(who.paint, thick, [tissues.T1, tissues.STIR], rng, tissues.Faults())
    (post,) = tissues.scanned(who.paint, thin, [tissues.ENHANCED_3D], rng, tissues.Faults())
    return who, {"t1": t1, "stir": stir, "post": post}


def visit(folder: Path, files: Files, params: Params) -> tuple[list[dict], list[dict]]:
    folder.mkdir(exist_ok=True)
    archives.write(folder / "study.zip", files)
    item = Item(STUDY, "d", {"study": STUDY, "subject": "OF", "archives": [(folder / "study.zip").as_posix()]})
    rows = process(item, params, folder)
    return [r for r in rows if r["table"] == "hips"], [r for r in rows if r["table"] == "series"]


def off(row: dict, who: Person) -> float:
    centre = np.array([row[f"center_{axis}_mm"] for axis in "xyz"])
    return float(np.linalg.norm(centre - who.joints[row["side"]].centre))


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_every_maker_gives_the_same_hips(dialect: str, tmp_path: Path, params: Params, seen: Seen) -> None:
    who, volumes = seen
    agent = {"ContrastBolusAgent": "GADAVIST" if dialect != "siemens" else ""}
    files = [
        file
        for number, (role, image) in enumerate(volumes.items(), 1)
        for file in written(image, role, dialect, number=number, **(agent if role == "post" else {}))
    ]
    found, series = visit(tmp_path, files, params)
    assert [(row["side"], row["status"], row["roles"]) for row in found] == [
        ("L", "ok", "t1+fluid+contrast"), ("R", "ok", "t1+fluid+contrast"),
    ]  # fmt: skip
    assert all(off(row, who) < 2.0 for row in found)
    assert all(row["status"] == "used" for row in series)
    marrow = [hips.read(tmp_path / row["file"]).values("t1")[5:7, 52:60, 52:60].mean() for row in found]
    assert 0.5 < marrow[1] < 1.3  # the sound one, whatever the maker's units


def test_a_wrong_side_in_the_header_is_recorded_and_not_followed(tmp_path: Path, params: Params, seen: Seen) -> None:
    who, volumes = seen
    t1 = volumes["t1"]
    column = int(t1.to_index(who.joints["R"].centre)[2])
    low = max(column - 30, 0)
    affine = t1.affine.copy()
    affine[:3, 3] = t1.to_lps(np.array([0, 0, low]))
    one = Volume(np.ascontiguousarray(t1.array[:, :, low : column + 30]), affine)
    for says in ({"Laterality": "L"}, {"SeriesDescription": "COR T1 LEFT HIP"}):
        found, _ = visit(tmp_path, written(one, "t1", "siemens", **says), params)
        assert [row["side"] for row in found] == ["R"] and off(found[0], who) < 2.0
        assert "Laterality says L" in found[0]["conflict"]


def test_an_empty_agent_says_something_only_beside_series_without_one(seen: Seen) -> None:
    plain = written(seen[1]["t1"], "t1", "siemens", number=1)
    empty = written(seen[1]["post"], "post", "siemens", number=2, ContrastBolusAgent="")
    named = written(seen[1]["post"], "post", "siemens", number=3, ContrastBolusAgent="X")

    def agents(files: Files) -> list[bool]:
        return [stack.physics["contrast"] for stack in told(read_stacks(files)[0])]

    assert agents(plain + empty) == [False, True]
    assert agents(empty) == [False]
    assert agents(empty + named) == [False, True]


def kinds(files: Files) -> list[Stack]:
    return read_stacks(files)[0]


def test_dixon_images_two_echoes_and_phases_of_one_series_are_told_apart(params: Params, seen: Seen) -> None:
    from tasks.standardize.roles import candidate

    t1 = seen[1]["t1"]
    echoes = [{"te": 2.4, "kind": "WATER"}, {"te": 2.4, "kind": "FAT"}, {"te": 2.4, "kind": "OUT_OF_PHASE"}, {"te": 60}]
    stacks = kinds(multiframe([t1] * 4, "t1", echoes))
    assert len(stacks) == 4 and all(len(stack.frames) == 13 for stack in stacks)
    roles = {}
    for stack in stacks:
        one = candidate(stack, *volume(stack), params)
        roles[stack.physics["kind"] + f" {stack.physics['te_ms']:g}"] = one.role or one.why
    assert "a fat image" in roles["FAT+NONE 2.4"] and "opposed" in roles["NONE+OUT_OF_PHASE 2.4"]
    assert roles["NONE+WATER 2.4"].startswith("no role") and "te_ms 60" in roles["M+NONE 60"]
    subtracted = kinds(written(t1, "post", "ge", ImageType=["DERIVED", "PRIMARY", "PROCESSED", "SUBTRACT"]))
    assert candidate(subtracted[0], *volume(subtracted[0]), params).why.startswith("a subtraction")


def test_b_values_agents_and_stacks_of_enhanced_frames_are_read(params: Params, seen: Seen) -> None:
    from tasks.standardize.roles import candidate

    post = seen[1]["post"]
    low, high = kinds(multiframe([post] * 2, "t1", [{"b": 0}, {"b": 800}]))
    assert [one.physics["b_value"] for one in (low, high)] == [0, 800]
    assert "b 800" in candidate(high, *volume(high), params).why
    # A dynamic series names its agent once for all frames, and begins without.
    phases = kinds(multiframe([post] * 2, "post", [{"time": 1, "agent": "NO"}, {"time": 2, "agent": "YES"}]))
    assert [one.physics["contrast"] for one in phases] == [False, True]
    # Two stacks on one place, told apart by their names; a name for each frame is none.
    assert [len(one.frames) for one in kinds(multiframe([post] * 2, "t1", [{"stack": "1"}, {"stack": "2"}]))] == [
        30,
        30,
    ]
    alone = multiframe([post], "t1", [{"stack": "1"}])
    dataset = pydicom.dcmread(io.BytesIO(alone[0][1]))
    for k, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        groups.FrameContentSequence[0].StackID = str(k)
    assert [len(one.frames) for one in kinds([("a.dcm", encoded(dataset))])] == [30]


def test_a_legacy_converted_object_is_what_its_classic_files_were(seen: Seen) -> None:
    from highdicom.legacy import LegacyConvertedEnhancedMRImage

    more = {"StudyID": "1", "StudyDate": "20200101", "StudyTime": "1200", "PatientName": "", "AccessionNumber": "",
            "PatientBirthDate": "", "PatientSex": "", "ReferringPhysicianName": "", "SliceLocation": 0.0}  # fmt: skip
    classic = written(seen[1]["stir"], "stir", "siemens", **more)
    datasets = [pydicom.dcmread(io.BytesIO(data)) for _, data in classic]
    made = LegacyConvertedEnhancedMRImage(datasets, f"{STUDY}.50", 50, f"{STUDY}.50.1", 1)
    (old,), (new,) = kinds(classic), kinds([("a.dcm", encoded(made))])
    same = ("tr_ms", "te_ms", "ti_ms", "fat_suppressed", "three_d", "contrast")
    assert {name: new.physics[name] for name in same} == {name: old.physics[name] for name in same}
    assert np.array_equal(volume(new)[0].array, volume(old)[0].array)
    assert np.allclose(volume(new)[0].affine, volume(old)[0].affine)


def halves(image: Volume) -> dict[str, Volume]:
    """Each hip for itself: the columns of a wide coronal image cut in the middle."""
    half = image.array.shape[2] // 2
    right = Volume(image.array[:, :, :half], image.affine)
    affine = image.affine.copy()
    affine[:3, 3] = image.to_lps(np.array([0.0, 0.0, half]))
    parts = [right, Volume(image.array[:, :, half:], affine)]
    parts.sort(key=lambda part: part.to_lps(np.array(part.array.shape) / 2)[0])
    return dict(zip("RL", parts, strict=True))


@pytest.mark.parametrize("wide", [False, True])
def test_series_that_show_one_hip_each_are_both_used(wide: bool, tmp_path: Path, params: Params, seen: Seen) -> None:
    who, images = seen
    t1, stir = halves(images["t1"]), halves(images["stir"])
    files = written(stir["L"], "stir", "siemens", number=3) + written(stir["R"], "stir", "siemens", number=4)
    if wide:
        files += written(images["t1"], "t1", "siemens", number=1)
    else:
        files += written(t1["L"], "t1", "siemens", number=1) + written(t1["R"], "t1", "siemens", number=2)
    found, series = visit(tmp_path, files, params)
    assert [(row["side"], row["roles"], row["left_out"]) for row in found] == [
        ("L", "t1+fluid", ""),
        ("R", "t1+fluid", ""),
    ]
    assert all(off(row, who) < 2.0 for row in found)
    assert {row["status"] for row in series} == {"used"}
    if not wide:  # a dead head alone is not sure enough; beside the other one it is
        assert (
            set(locate(t1["R"], 1, params.localizer).heads) == {"R"} and not locate(t1["L"], 1, params.localizer).heads
        )
    for row, number in zip(found, (3, 4), strict=True):
        assert hips.read(tmp_path / row["file"]).meta["sources"]["fluid"] == f"{STUDY}.{number}"


def test_phases_without_any_time_are_taken_in_the_order_of_their_numbers(seen: Seen) -> None:
    post = seen[1]["post"]
    later = Volume((post.array * 0.5).astype(np.uint16), post.affine)
    first = written(post, "post", "canon", number=7)

    def renumber(k: int, dataset: Dataset) -> Dataset:
        dataset.SeriesInstanceUID = f"{STUDY}.7"
        dataset.InstanceNumber = int(dataset.InstanceNumber) + 100
        return dataset

    both = [volume(stack)[0] for stack in kinds(first + written(later, "post", "canon", number=8, change=renumber))]
    assert len(both) == 2
    assert sorted(round(float(one.array.mean() / post.array.mean()), 1) for one in both) == [0.5, 1.0]


def test_two_hips_with_nothing_between_them_in_one_series_are_two_stacks(seen: Seen) -> None:
    t1 = seen[1]["t1"]

    def side_by_side(k: int, dataset: Dataset) -> Dataset:
        if k >= 6:
            away = t1.affine[:3, 0] / t1.spacing[0] * 90
            dataset.ImagePositionPatient = [
                float(a + b) for a, b in zip(dataset.ImagePositionPatient, away, strict=True)
            ]
        return dataset

    stacks = kinds(written(t1, "t1", "ge", change=side_by_side))
    assert sorted(len(stack.frames) for stack in stacks) == [6, 7]
    for stack in stacks:
        assert measure(stack)[1].missing == 0


def test_both_hips_of_one_sagittal_series_are_found(tmp_path: Path, params: Params, seen: Seen) -> None:
    who, files = seen[0], []
    for number, side in enumerate("LR", 1):
        slab = tissues.Slab("sagittal", (220.0, 220.0), (112, 112), 15, 4.4, 3.9, who.joints[side].centre, (0, 0, 0))
        (image,) = tissues.scanned(who.paint, slab, [tissues.T1], np.random.default_rng(number), tissues.Faults())

        def as_one(k: int, dataset: Dataset, number: int = number) -> Dataset:
            dataset.SeriesInstanceUID = f"{STUDY}.9"
            dataset.InstanceNumber = 100 * number + k
            return dataset

        files += written(image, "t1", "siemens", number=number, change=as_one)
    found, series = visit(tmp_path, files, params)
    assert [(row["side"], row["status"]) for row in found] == [("L", "ok"), ("R", "ok")]
    assert all(off(row, who) < 2.0 for row in found)
    assert [row["status"] for row in series] == ["used", "used"]


def test_inverted_and_padded_pixels(seen: Seen) -> None:
    t1 = seen[1]["t1"]

    def inverted(k: int, dataset: Dataset) -> Dataset:
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.PixelData = (4095 - np.frombuffer(dataset.PixelData, "<u2")).astype("<u2").tobytes()
        return dataset

    def padded(k: int, dataset: Dataset) -> Dataset:
        dataset.PixelPaddingValue = 65535
        plane = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns).copy()
        plane[:, :9] = 65535
        dataset.PixelData = plane.tobytes()
        return dataset

    (plain,) = kinds(written(t1, "t1", "siemens"))
    (other,) = kinds(written(t1, "t1", "siemens", change=inverted))
    assert np.array_equal(volume(plain)[0].array, volume(other)[0].array)
    (edge,) = kinds(written(t1, "t1", "canon", change=padded))
    assert volume(edge)[0].array.max() < 65535


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_files_of_signed_pixels(syntax: str, seen: Seen) -> None:
    t1 = seen[1]["t1"]

    def squeezed(k: int, dataset: Dataset) -> Dataset:
        again = pydicom.dcmread(io.BytesIO(encoded(dataset)))
        again.compress(syntax, generate_instance_uid=False)
        return again

    small = Volume(t1.array[:4], t1.affine)
    (stack,) = kinds(written(small, "t1", "ge", change=squeezed))
    (plain,) = kinds(written(small, "t1", "ge"))
    assert np.array_equal(volume(stack)[0].array, volume(plain)[0].array)


@pytest.mark.needs("dcmcjpeg")
@pytest.mark.parametrize("process14", ["+e1", "+el"])
def test_lossless_jpeg_of_dcmtk(process14: str, tmp_path: Path, seen: Seen) -> None:
    (_, data), *_ = written(seen[1]["t1"], "t1", "siemens")
    (tmp_path / "in.dcm").write_bytes(data)
    subprocess.run(["dcmcjpeg", process14, tmp_path / "in.dcm", tmp_path / "out.dcm"], check=True, capture_output=True)
    plain, packed = (read_stacks([("x", path.read_bytes())])[0][0].frames[0] for path in sorted(tmp_path.glob("*.dcm")))
    assert "JPEG Lossless" in packed.dataset.file_meta.TransferSyntaxUID.name
    assert np.array_equal(decode(plain), decode(packed))


def test_several_frames_without_places_are_refused_with_a_reason(seen: Seen) -> None:
    def many(k: int, dataset: Dataset) -> Dataset:
        dataset.NumberOfFrames, dataset.PixelData = 3, dataset.PixelData * 3
        return dataset

    stacks, unusable = read_stacks(written(seen[1]["t1"], "t1", "siemens", change=many))
    assert not stacks and "several frames in one object" in unusable[0].reason


BROKEN = [
    "Rows", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "PixelData", "BitsAllocated",
    "PixelRepresentation", "SeriesInstanceUID", "EchoTime", "ImageType", "SamplesPerPixel", "Modality", "BitsStored",
]  # fmt: skip


def test_no_broken_header_stops_a_visit(tmp_path: Path, params: Params, seen: Seen) -> None:
    """Every attribute gone, empty, or nonsense: rows say so, and the good series is used all the same."""
    small = Volume(seen[1]["t1"].array[:5, ::4, ::4], seen[1]["t1"].affine @ np.diag([1.0, 4, 4, 1]))
    files = written(seen[1]["t1"], "t1", "siemens")
    number = 20
    for name in BROKEN:
        for how in ("gone", "empty", "nonsense"):
            number += 1

            def broken(k: int, dataset: Dataset, name: str = name, how: str = how) -> Dataset:
                if how == "gone":
                    delattr(dataset, name) if name in dataset else None
                elif how == "empty":
                    setattr(dataset, name, b"" if name == "PixelData" else None)
                elif name in ("Rows", "BitsAllocated", "PixelRepresentation", "SamplesPerPixel", "BitsStored"):
                    setattr(dataset, name, 7)
                elif name != "PixelData":
                    setattr(dataset, name, ["-1", "1e300"] if name not in ("Modality", "SeriesInstanceUID") else "9.9")
                return dataset

            try:
                files += written(small, "stir", "siemens", number=number, change=broken)
            except (ValueError, TypeError, AttributeError):
                continue  # pydicom itself does not write it
    found, series = visit(tmp_path, files, params)
    assert [row["status"] for row in found] == ["ok", "ok"]
    assert all(row["reason"] for row in series if row["status"] != "used")
    assert len(series) > 20


def test_a_mask_on_the_hip_grid_comes_back_within_half_a_voxel(tmp_path: Path, params: Params, seen: Seen) -> None:
    who, volumes = seen
    t1 = volumes["t1"]
    found, _ = visit(tmp_path, written(t1, "t1", "siemens"), params)
    for row in found:
        hip = hips.read(tmp_path / row["file"])
        drawn = Volume(hip.values("t1"), np.array(hip.meta["patient_affine"]["t1"]))
        index = np.argwhere(np.ones(drawn.array.shape, bool))
        ball = np.linalg.norm(drawn.to_lps(index) - who.joints[row["side"]].centre, axis=1) < 20.0
        back = t1.to_index(drawn.to_lps(index[ball])).mean(axis=0)  # the mask's middle, in voxels of the source
        wanted = t1.to_index(who.joints[row["side"]].centre)
        assert np.abs(back - wanted).max() < 0.5
        # The image itself: bright in the hip grid where the source is bright, and less so a voxel beside it.
        places, here = drawn.to_lps(index[ball]), drawn.array[tuple(index[ball].T)]
        right, beside = (
            np.corrcoef(sampled(t1, places + away), here)[0, 1] for away in (np.zeros(3), t1.affine[:3, 1])
        )
        assert right > 0.97 and beside < right


def sampled(image: Volume, places: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.map_coordinates(image.array.astype(float), image.to_index(places).T, order=1, mode="nearest")


def test_the_qc_sheet_shows_each_hip(tmp_path: Path, params: Params, seen: Seen) -> None:
    from PIL import Image

    files = written(seen[1]["t1"], "t1", "siemens")
    found, series = visit(tmp_path, files, params)
    assert [row["owns"] for row in series] == [f"{STUDY}.png"]
    with Image.open(tmp_path / f"{STUDY}.png") as page:
        tiles = np.array(page)
    assert tiles.shape[1] > 800 and tiles[:168].std() > 20
    silent, _ = visit(tmp_path / "b", files, params.model_copy(update={"sheets": False}))
    assert not list((tmp_path / "b").glob("*.png"))
    assert [row["digest"] for row in silent] == [row["digest"] for row in found]

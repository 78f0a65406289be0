"""When a study is complete: quiet, no gap in slice positions, as many files as declared."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_files import AXIAL, CORONAL, dicom, stack, write_tree

from tasks.ledger import Ledger
from tasks.receive import Params, accept, complete, ingest, settle


def waiting_after(ledger: Ledger, params: Params, files: list[bytes]) -> str:
    for data in files:
        assert accept(data, ledger, "local", "hospital").outcome == "accepted"
    settle(ledger, params, force=True)
    return ledger.waiting_for() if ledger.counts()["receiving"] else ""


def test_a_study_is_left_alone_until_it_is_quiet(ledger: Ledger, params: Params) -> None:
    for data in stack():
        accept(data, ledger, "local", "hospital")
    [row] = ledger.current("receiving")
    assert settle(ledger, params, now=row.last_received + 9.9) == []
    assert settle(ledger, params, now=row.last_received + 10.1) == [row.row_key]
    assert settle(ledger, params, now=row.last_received + 99) == []


def test_a_clock_that_was_set_back_does_not_hold_studies(ledger: Ledger, params: Params) -> None:
    from arrivals import PaperSpool, arrival

    ledger.receive([arrival()], PaperSpool(), now=4e9)
    assert len(settle(ledger, params)) == 1


@pytest.mark.parametrize("missing", [2, 5, 8])
def test_a_missing_slice_is_waited_for(ledger: Ledger, params: Params, missing: int) -> None:
    files = stack(slices=10)
    assert "slices missing in 1 of 1 series" in waiting_after(ledger, params, files[:missing] + files[missing + 1 :])
    accept(files[missing], ledger, "local", "hospital")
    assert len(settle(ledger, params, force=True)) == 1


def test_a_slice_that_comes_while_its_study_is_judged_is_seen(
    ledger: Ledger, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    *files, last = stack(slices=10)[::-1]
    between = files.pop(4)
    for data in [*files, last]:
        accept(data, ledger, "local", "hospital")
    judge = complete.series_with_gaps

    def judge_slowly(geometry: list[tuple[str, str]], tolerance: float) -> tuple[int, int]:
        accept(between, ledger, "local", "hospital")
        return judge(geometry, tolerance)

    monkeypatch.setattr(complete, "series_with_gaps", judge_slowly)
    assert settle(ledger, params, force=True) == []
    monkeypatch.undo()
    [row] = ledger.current("receiving")
    assert settle(ledger, params, now=row.last_received + 11) == [row.row_key]


def test_the_gap_is_named_by_series(ledger: Ledger, params: Params) -> None:
    files = stack(slices=8, series="1") + stack(slices=8, series="2", step=0.8)
    assert "slices missing in 1 of 2 series" in waiting_after(ledger, params, files[:10] + files[12:])


def test_the_declared_count_is_waited_for(ledger: Ledger, params: Params) -> None:
    files = stack(slices=4, NumberOfStudyRelatedInstances=5)
    assert "4 of 5 declared files" in waiting_after(ledger, params, files)
    [row] = ledger.current("receiving")
    assert settle(ledger, params, now=row.last_received + 1001) == []
    assert ledger.quarantined() == {"fewer_files_than_declared": 1}
    accept(dicom(series="2", NumberOfStudyRelatedInstances=5), ledger, "local", "hospital")
    assert len(settle(ledger, params, force=True)) == 1


def test_a_count_that_is_told_later_is_judged_again(ledger: Ledger, params: Params) -> None:
    assert waiting_after(ledger, params, stack(slices=4, NumberOfStudyRelatedInstances=9))
    [row] = ledger.current("receiving")
    ledger.declare(row.row_key, 4)
    assert settle(ledger, params, now=row.last_received + 11) == [row.row_key]


def two_slabs() -> list[bytes]:
    """Sagittal slices over the right and the left hip in one series: a large step, and numbers without a hole."""
    places = [*range(-110, -60, 4), *range(60, 110, 4)]
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    return [
        dicom(number=n, orientation=sagittal, ImagePositionPatient=[float(x), 0.0, 0.0])
        for n, x in enumerate(places, start=1)
    ]


def localizer() -> list[bytes]:
    """Three planes, three slices each, in one series, with other steps."""
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    planes = enumerate(((CORONAL, 30.0), (AXIAL, 50.0), (sagittal, 15.0)))
    return [
        dicom(number=3 * plane + n, orientation=orientation, ImagePositionPatient=_along(orientation, step * n))
        for plane, (orientation, step) in planes
        for n in (1, 2, 3)
    ]


def _along(orientation: tuple[float, ...], distance: float) -> list[float]:
    import numpy as np

    return [float(v) for v in np.cross(orientation[:3], orientation[3:]) * distance]


def dynamic() -> list[bytes]:
    """Four phases over the same six positions, instance numbers running on."""
    return [
        dicom(number=phase * 6 + n + 1, ImagePositionPatient=[0.0, n * 2.0, 0.0], TemporalPositionIdentifier=phase + 1)
        for phase in range(4)
        for n in range(6)
    ]


def interleaved() -> list[bytes]:
    """Instance numbers in the order of acquisition: odd positions first."""
    order = [*range(0, 10, 2), *range(1, 10, 2)]
    return [dicom(number=i + 1, ImagePositionPatient=[0.0, n * 3.0, 0.0]) for i, n in enumerate(order)]


def tilted() -> list[bytes]:
    """An oblique stack whose direction cosines and positions are rounded as scanners round them."""
    import numpy as np

    cosines = (0.99619, 0.0, 0.08716, 0.0, 0.99756, -0.0698)
    normal = np.cross(cosines[:3], cosines[3:])
    return [
        dicom(
            number=n,
            orientation=tuple(round(c + 1e-5 * (n % 2), 5) for c in cosines),
            ImagePositionPatient=[round(float(v), 2) for v in normal * 3.3 * n],
        )
        for n in range(1, 12)
    ]


def enhanced() -> list[bytes]:
    return [dicom(number=n, NumberOfFrames=30, PixelData=bytes(64 * 2 * 30)) for n in (1, 4)]


def without_geometry() -> list[bytes]:
    gone = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    return [dicom(number=n, **gone) for n in (1, 2, 9)]


def half_step() -> list[bytes]:
    """A regular step and a regular stride of numbers: another reconstruction has the numbers between."""
    return [dicom(number=2 * n + 1, ImagePositionPatient=[0.0, n * 4.0, 0.0]) for n in range(6)]


@pytest.mark.parametrize(
    "series", [two_slabs, localizer, dynamic, interleaved, tilted, enhanced, without_geometry, half_step]
)
def test_what_scanners_really_send_is_no_gap(series: object, ledger: Ledger, params: Params) -> None:
    assert waiting_after(ledger, params, series()) == ""  # type: ignore[operator]


@pytest.mark.parametrize("series", [two_slabs, dynamic, interleaved, tilted])
def test_and_with_one_slice_less_it_is(series: object, ledger: Ledger, params: Params) -> None:
    files = series()  # type: ignore[operator]
    assert "slices missing" in waiting_after(ledger, params, files[:3] + files[4:])


def test_a_folder_given_as_a_whole_says_nothing_of_what_a_scanner_is_sending(
    ledger: Ledger, params: Params, tmp_path: Path
) -> None:
    for data in stack(study="1.2.3.7")[:3]:  # its first slices, without a gap
        accept(data, ledger, "local", "hospital")
    tree = write_tree(tmp_path / "in", {str(n): data for n, data in enumerate(stack(study="1.2.3.8"))})
    given = ingest(tree, ledger, "local", "hospital", params).row_keys
    assert settle(ledger, params, force=True, only=given) == list(given)
    [sent] = ledger.current("receiving")
    assert sent.study_uid == "1.2.3.7"
    assert settle(ledger, params, now=sent.last_received + 11, force=True, only=given) == [sent.row_key]


def test_a_folder_given_again_ends_what_the_first_time_did_not(ledger: Ledger, params: Params, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", {str(n): data for n, data in enumerate(stack())})
    ingest(tree, ledger, "local", "hospital", params)  # and dies before it is settled
    again = ingest(tree, ledger, "local", "hospital", params)
    assert again.accepted == 0 and len(settle(ledger, params, force=True, only=again.row_keys)) == 1

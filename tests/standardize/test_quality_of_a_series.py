"""Ghosts, movement, noise and coil bias: more of the fault is a larger number, and none of it a small one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tissues
from torsos import Person, person

from tasks.domain.volume import Volume
from tasks.standardize import intensity, quality
from tasks.standardize.hip import poor
from tasks.standardize.params import Params


@pytest.fixture(scope="module")
def who() -> Person:
    return person(np.random.default_rng(61), 0.9, {"L": "sound", "R": "sound"}, thin=False)


def scanned(who: Person, **fault: object) -> Volume:
    slab = tissues.Slab("coronal", (420.0, 420.0), (96, 96), 10, 5.0, 1.5, who.middle, (3.0, 2.0, 0.0))
    rng = np.random.default_rng(9)
    return tissues.scanned(who.paint, slab, [tissues.T1], rng, replace(tissues.Faults(), **fault))[0]


@pytest.fixture(scope="module")
def clean(who: Person) -> Volume:
    return scanned(who)


def measured(volume: Volume, who: Person) -> dict[str, float | None]:
    boxes = intensity.around(volume, [joint.centre for joint in who.joints.values()])
    return quality.quality(volume, boxes, *intensity.sample(boxes))


@pytest.mark.parametrize("axis", [0, 1])
def test_ghosts_along_either_axis(axis: int, who: Person, clean: Volume, params: Params) -> None:
    none, some, many = (
        measured(clean if not share else scanned(who, ghost=share, ghost_axis=axis), who)["ghosting"]
        for share in (0.0, 0.06, 0.15)
    )
    assert none is not None and some is not None and many is not None
    limit = 0.05
    assert none < 0.2 * limit and many > limit
    found: dict[str, float | None] = {"clipped": 0.0, "ghosting": many, "motion_mm": 0.0}
    assert "ghosts of" in poor("t1", found, params.quality.model_copy(update={"ghosting": limit}))
    assert poor("t1", found, params.quality) == ""  # shown and not judged by default: docs/hips.md
    assert none <= some < many  # ghosts along the body reach the air beside it only when they are strong


def test_a_patient_who_moved_between_the_two_passes(who: Person, clean: Volume, params: Params) -> None:
    still = measured(clean, who)["motion_mm"]
    moved = {mm: measured(scanned(who, jump=(mm, 0.0, 0.3 * mm)), who)["motion_mm"] for mm in (5.0, 9.0)}
    assert still is not None and still < 2.0
    assert moved[5.0] == pytest.approx(5.2, abs=1.5) and moved[9.0] == pytest.approx(9.4, abs=2.0)
    assert "beside their neighbours" in poor("t1", {"clipped": 0, "ghosting": 0, "motion_mm": 9.4}, params.quality)
    assert poor("t1", {"clipped": 0, "ghosting": None, "motion_mm": still}, params.quality) == ""


def test_noise_and_clipping(who: Person, clean: Volume) -> None:
    assert measured(scanned(who, noise=0.3), who)["snr"] < 0.4 * measured(clean, who)["snr"]
    cut = Volume(np.minimum(clean.array, int(np.percentile(clean.array, 93))), clean.affine)
    assert measured(cut, who)["clipped"] > 0.05 > 0.01 > measured(clean, who)["clipped"]


def filled_by_the_body() -> Volume:
    rng = np.random.default_rng([7, 7])
    large = person(rng, 1.0, {"L": "sound", "R": "dead"}, thin=False)
    slab = tissues.Slab("coronal", (300.0, 300.0), (96, 96), 8, 5.0, 1.5, large.middle, (3.0, 2.0, 0.0))
    (image,) = tissues.scanned(large.paint, slab, [tissues.STIR], np.random.default_rng([8, 7]), tissues.Faults())
    return image


def test_a_field_without_air_has_no_number_for_ghosts(clean: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Volume(np.ascontiguousarray(clean.array[:, 36:60, 30:66]), clean.affine)
    assert quality.ghosting(inside, 10.0) is None
    # Fat suppressed, and filled by the body: what lies beyond its bright parts is no air with ghosts.
    filled = filled_by_the_body()
    assert quality.ghosting(filled, quality.noise([filled.array])) is None
    monkeypatch.setattr(quality, "DARK", 9.0)
    taken_for_ghosts = quality.ghosting(filled, quality.noise([filled.array]))
    assert taken_for_ghosts is not None and taken_for_ghosts > 0.05
    assert quality.motion(Volume(clean.array[:4], clean.affine)) is None
    assert quality.motion(Volume(np.zeros((9, 64, 64), np.uint16), clean.affine)) is None


def test_the_coil_is_taken_out(who: Person, params: Params) -> None:
    uneven, even = scanned(who, coil=1.6, noise=0.02), scanned(who, coil=0.0, noise=0.02)
    body = even.array > np.percentile(even.array, 55)
    flat = intensity.unbiased(uneven, params.n4)

    def unevenness(image: np.ndarray) -> float:
        return float(np.std(np.log(np.maximum(image[body], 1)) - np.log(even.array[body].astype(float))))

    assert unevenness(flat.array) < 0.6 * unevenness(uneven.array)
    assert flat.array.shape == uneven.array.shape and np.isfinite(flat.array).all()

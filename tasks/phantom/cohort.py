"""A cohort on disk: images, clinical tables, masks, truth."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.errors import WrongUse
from tasks.phantom import masks, records
from tasks.phantom.dicomfiles import Visit, uid, write
from tasks.phantom.disease import Population, population
from tasks.phantom.identity import Hospital, Person, Register, hospital, person, plant
from tasks.phantom.montage import thumbnails, write_montage
from tasks.phantom.presets import LOG_HR, VESSEL_GAIN_MM
from tasks.phantom.scanners import SCANNERS
from tasks.phantom.study import StudyPlan, render
from tasks.store.items import Mapper

MASKED = (0.85, 0.45)
"""Share of studies in which the first and the second reader draw masks."""


@dataclass(frozen=True)
class Summary:
    """What `write_cohort` wrote."""

    patients: int
    studies: int
    files: int
    bytes: int
    hip_visits: int
    landmarks: int
    progressed: int


@dataclass(frozen=True)
class Order:
    """One study to write (picklable): where, whose, and what is in it."""

    out: str
    folder: str
    plan: StudyPlan
    visit: Visit
    seed: tuple[int, ...]
    thumbnails: bool


def write_cohort(
    out: Path,
    patients: int,
    seed: int,
    site: str = "local",
    mapper: Mapper | None = None,
    progress: Callable[[int, int], None] | None = None,
    preset: str = "B2",
    matrix: float = 1.0,
) -> Summary:
    """Write `out`/dicom, annotations, truth and montage.png for `patients` invented patients.

    The same arguments give the same bytes. `mapper` is like the built-in map; `progress(done, total)` is called after
    each study. `matrix` above 1 writes smaller images (tests).
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise WrongUse(f"{out} is not empty: phantoms are written to a folder of their own")
    for name in ("dicom", "annotations", "truth"):
        (out / name).mkdir(parents=True, exist_ok=True)
    cohort = population(patients, seed, preset)
    where = hospital(site, seed)
    people = [
        person(site, seed, number, row["sex"], row["age"], row["first_day"])
        for number, row in enumerate(cohort.patients.to_dict("records"))
    ]
    orders = list(_orders(out, cohort, people, where, seed, site, matrix))
    results: list[dict[str, Any]] = []
    for done, result in enumerate((mapper or map)(write_study, orders), start=1):
        results.append(result)
        if progress is not None:
            progress(done, len(orders))
    register = Register()
    for who in people:
        plant(register, who, where)
    for result in results:
        register.merge(result["register"])
    _tables(out, cohort, people, where, orders, results, seed, site, register)
    write_montage(out / "montage.png", [result["thumbnails"] for result in results if result["thumbnails"]])
    known = cohort.visits["label"].notna()
    return Summary(
        patients=patients,
        studies=len(orders),
        files=sum(result["files"] for result in results),
        bytes=sum(result["bytes"] for result in results),
        hip_visits=len(cohort.visits),
        landmarks=int(known.sum()),
        progressed=int(cohort.visits.loc[known, "label"].sum()),
    )


def write_study(order: Order) -> dict[str, Any]:
    """Render and write one study with its masks; returns what the truth tables need."""
    rendered = render(order.plan)
    register = Register()
    out = Path(order.out)
    folder = out / "dicom" / order.folder
    size = write(folder, order.visit, rendered, register)
    rows = _masks(out / "annotations", order, rendered, register)
    series = {item.protocol.name: item for item in rendered.series}
    truth = []
    for side, state in rendered.states.items():
        row: dict[str, Any] = {"side": side, "head_radius_mm": state.radius}
        row |= dict(zip(("center_x_mm", "center_y_mm", "center_z_mm"), state.centre, strict=True))
        if side in rendered.truth:
            voxel = abs(float(np.linalg.det(series["t1"].affine[:3, :3])))
            shapes = rendered.truth[side]
            head, lesion = int((shapes.head < 0).sum()), int((shapes.lesion < 0).sum())
            row |= {"head_volume_mm3": head * voxel, "lesion_volume_mm3": lesion * voxel}
            row["lesion_fraction_t1_grid"] = lesion / head if head else np.nan
            tree = state.tree()
            row |= {"vessel_length_true_mm": float(len(tree.segments)), "vessel_branches_true": float(tree.branches())}
            row["vessel_branches_3mm"] = float(tree.branches(3.0))
        truth.append(row)
    files = sum(item.protocol.shape[0] for item in rendered.series)
    small = thumbnails(rendered, order.plan) if order.thumbnails else None
    return {
        "truth": truth,
        "masks": rows,
        "register": register.as_dict(),
        "files": files,
        "bytes": size,
        "thumbnails": small,
    }


def one_study(
    out: Path,
    seed: int = 1,
    vendor: str = "siemens",
    visit: int = 0,
    matrix: float = 2.0,
    site: str = "local",
    hips: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """One small study below `out`/dicom, masks below `out`/annotations: for tests that need a few real files quickly.

    The same seed is the same patient: `visit` 1 is their next visit. `hips` overrides latent values of a side,
    such as {"L": {"affected": True, "half_angle_deg": 45.0}}. Returns patient_id, study_instance_uid, folder,
    series {name: uid}, centers {side: LPS mm}, truth (rows), files and phi (as truth/phi.json).
    """
    cohort = population(1, seed)
    where = hospital(site, seed)
    own = cohort.patients.iloc[0]
    who = person(site, seed, 0, own["sex"], own["age"], own["first_day"])
    vendors: list[str] = [scanner.vendor for scanner in SCANNERS]
    orders = list(_orders(Path(out), cohort, [who], where, seed, site, matrix))
    order = orders[min(visit, len(orders) - 1)]
    changed = tuple(row | (hips or {}).get(row["side"], {}) for row in order.plan.hips)
    number = vendors.index(vendor)
    order = replace(
        order,
        plan=replace(order.plan, scanner=number, hips=changed),
        visit=replace(order.visit, scanner=number),
        thumbnails=False,
    )
    (Path(out) / "annotations").mkdir(parents=True, exist_ok=True)
    result = write_study(order)
    register = Register()
    plant(register, who, where)
    register.merge(result["register"])
    return {
        "patient_id": who.patient_id,
        "study_instance_uid": order.visit.study_uid,
        "folder": Path(out) / "dicom" / order.folder,
        "series": {name: order.visit.series_uid(name) for name in ("t1", "stir", "ce")},
        "centers": {row["side"]: [row[f"center_{axis}_mm"] for axis in "xyz"] for row in result["truth"]},
        "truth": result["truth"],
        "files": result["files"],
        "phi": register.as_dict(),
    }


def _masks(folder: Path, order: Order, rendered: Any, register: Register) -> list[dict[str, str]]:
    """Write the readers' masks of one study; returns its rows of masks.csv."""
    rng = np.random.default_rng([*order.seed, 60])
    t1, _, contrast = rendered.series
    rows = []
    for number, reader in enumerate(order.visit.where.readers):
        draws, kind, vessel_kind, traces = rng.random() < MASKED[number], rng.random(), rng.random(), rng.random()
        if not draws:
            continue
        name = f"{order.visit.accession}_{reader.split('.')[1]}"
        shapes = masks.drawn(rendered, number, order.seed)
        if shapes and kind < 0.88:
            masks.write_seg(folder / f"seg_{name}.dcm", order.visit, t1, shapes, reader, register)
        elif shapes:
            masks.write_rtstruct(folder / f"rtss_{name}.dcm", order.visit, t1, shapes, reader, register)
        volume = masks.vessel_volume(rendered, number, order.seed)
        if traces < 0.85 and volume.any():
            file = f"vessels_{name}." + ("nii.gz" if vessel_kind < 0.7 else "nrrd")
            (masks.write_nifti if vessel_kind < 0.7 else masks.write_nrrd)(folder / file, volume, contrast.affine)
            for value, side in ((1, "L"), (2, "R")):
                if (volume == value).any():
                    rows.append(
                        {
                            "file": file,
                            "study_instance_uid": order.visit.study_uid,
                            "series_instance_uid": order.visit.series_uid("ce"),
                            "side": side,
                            "reader": reader,
                            "label": "vessel",
                            "value": str(value),
                        }
                    )
    return rows


def _orders(
    out: Path, cohort: Population, people: list[Person], where: Hospital, seed: int, site: str, matrix: float
) -> Iterator[Order]:
    rng = np.random.default_rng([seed, 61])
    for key_of_group, pair in cohort.visits.groupby(["patient", "visit"]):
        patient, visit = (int(part) for part in key_of_group)  # type: ignore[attr-defined, call-overload]
        own = cohort.patients.iloc[patient]
        scanner = int(own["vendor"]) if rng.random() > 0.12 else int(rng.integers(len(SCANNERS)))
        key = f"{site}/{seed}/{patient}/{visit}"
        hips = tuple(
            {**row, "bifurcations": tuple(cohort.hips["bifurcations"].iloc[row["hip"]])}
            for row in pair.to_dict("records")
        )
        yield Order(
            out=str(out),
            folder=uid(key, "folder")[-12:],
            plan=StudyPlan(
                (seed, patient, visit),
                (seed, patient),
                scanner,
                own["sex"],
                float(own["height_m"]),
                float(own["weight_kg"]),
                hips,
                matrix,
            ),
            visit=Visit(
                who=people[patient],
                where=where,
                scanner=scanner,
                key=key,
                day=people[patient].first_visit + dt.timedelta(days=int(pair["days"].iloc[0])),
                start=dt.time(int(rng.integers(7, 18)), int(rng.integers(0, 60)), int(rng.integers(0, 60))),
                height_m=float(own["height_m"]),
                weight_kg=float(own["weight_kg"]),
                number=int(rng.integers(1000, 99999)),
                chatty=bool(rng.random() < 0.35),
            ),
            seed=(seed, patient, visit),
            thumbnails=patient < 6 and visit == 0,
        )


def _tables(
    out: Path,
    cohort: Population,
    people: list[Person],
    where: Hospital,
    orders: list[Order],
    results: list[dict],
    seed: int,
    site: str,
    register: Register,
) -> None:
    uids = {(order.seed[1], order.seed[2]): order.visit.study_uid for order in orders}
    folder = out / "annotations"
    _csv(folder / "labels.csv", records.labels(cohort, people, where, uids, site, seed))
    _csv(folder / "treatments.csv", records.treatments(cohort, people, site))
    _csv(folder / "outcomes.csv", records.outcomes(cohort, people, site))
    columns = ["file", "study_instance_uid", "series_instance_uid", "side", "reader", "label", "value"]
    _csv(folder / "masks.csv", pd.DataFrame([row for result in results for row in result["masks"]], columns=columns))

    found = pd.DataFrame(
        [
            {
                "patient": order.seed[1],
                "visit": order.seed[2],
                "study_instance_uid": order.visit.study_uid,
                "folder": order.folder,
                "patient_id": order.visit.who.patient_id,
                "date": order.visit.day.isoformat(),
                "vendor": SCANNERS[order.visit.scanner].vendor,
            }
            | row
            for order, result in zip(orders, results, strict=True)
            for row in result["truth"]
        ]
    )
    truth = cohort.visits.drop(columns=[column for column in cohort.visits if str(column).startswith("obs_")])
    truth = found.merge(truth, on=["patient", "visit", "side"], how="left")
    _csv(out / "truth" / "hips.csv", truth)
    causes = {
        "log_hazard_ratio_of_collapse": LOG_HR,
        "vessel_gain_mm_at_12_months": VESSEL_GAIN_MM,
        "vessel_gain_branches_at_12_months": {"vascularized_bone_graft": 2.7},
    }
    (out / "truth" / "effects.json").write_text(json.dumps(causes, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (out / "truth" / "phi.json").write_text(
        json.dumps(register.as_dict(), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _csv(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8", float_format="%.6g")

"""`python -m tasks.annotate`: all imports, joined to what has arrived."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.annotate import agreement, derived, imports, join, report
from tasks.annotate.join import CONSENSUS, Joined
from tasks.annotate.params import Params
from tasks.annotate.place import process
from tasks.annotate.visits import Visits
from tasks.domain.errors import Refused
from tasks.store import items, tables
from tasks.store.digests import combine
from tasks.store.items import Item, Mapper

log = logging.getLogger("osteoflow.annotate")

STUDIES, SERIES, HIPS = Path("data/studies.parquet"), Path("data/series.parquet"), Path("data/hips.parquet")
HIP_FILES = Path("data/hips")
ANNOTATIONS, MASKS, MANIFEST = Path("data/annotations.parquet"), Path("data/masks"), Path("data/masks.parquet")
REPORTS = Path("reports/annotate")

OTHER_PATIENT = (
    "other_patient: its patient is not that of the images it refers to (if both are one, say so in merges.csv)"
)


def run(params: Params, mapper: Mapper) -> None:
    MASKS.mkdir(parents=True, exist_ok=True)
    hips = tables.read("hips", HIPS)
    by_origin = _visits(tables.read("studies", STUDIES), hips, params.window_days)
    joined = Joined()
    for folders, visits in by_origin.values():
        part = join.join(folders, visits, params.consensus)
        joined.rows += part.rows
        joined.waiting += part.waiting
        joined.refused += part.refused
        joined.corrections += part.corrections
    lesion_free = {
        (row["hip_visit"], row["reader"])
        for row in joined.rows
        if row["kind"] == "label" and row["name"] == "lesion" and row["value"] == "0"
    }
    todo = pending(by_origin, hips, _series(), lesion_free, joined)
    previous = tables.read("masks", MANIFEST) if MANIFEST.exists() else tables.empty("masks")
    masks = items.run("annotate", todo, process, params, previous=previous, out=MASKS, mapper=mapper)
    items.sweep(MASKS, masks)
    MASKS.mkdir(parents=True, exist_ok=True)  # DVC wants the folder also when nothing was drawn
    finish(joined, masks, params)


def pending(
    by_origin: dict[str, tuple[list[Path], Visits]],
    hips: pd.DataFrame,
    series: dict[str, dict[str, Any]],
    lesion_free: set[tuple[str, str]],
    joined: Joined,
) -> list[Item]:
    """One item for each hip-visit that has masks; masks whose study has not arrived wait."""
    drawn: dict[str, list[dict[str, Any]]] = defaultdict(list)
    studies = tables.read("studies", STUDIES)
    origin_of: dict[str, str] = dict(zip(studies["study"], studies["origin"], strict=True))
    for origin, (folders, visits) in by_origin.items():
        for folder in folders:
            for mask in imports.rows(folder, "masks"):
                source = f"{folder.name}/{mask['kind']}" + (f":{int(mask['row'])}" if mask["row"] else "")
                named = mask | {"path": str(folder / mask["file"]), "number": int(folder.name[:4]), "source": source}
                # Some programs keep masks in a study of their own: the images' study is that of the series they name.
                study = series.get(mask["series"], {}).get("study") or mask["study"]
                if study not in visits.subject_of:
                    joined.waiting[_why_not(origin, origin_of.get(study))] += 1
                    continue
                owner = visits.subject_of[study]
                other = mask["subject"] and owner not in visits.identities(mask["subject"])
                named["refused"] = OTHER_PATIENT if other else ""
                there = [hip for hip in visits.hips_of_study(study) if hip["status"] == "ok" and hip["file"]]
                if not there:
                    joined.waiting["no hip was found in the images of its visit"] += 1
                for hip in there:
                    drawn[hip["hip_visit"]].append(named)
    todo = []
    rows = {str(row["hip_visit"]): {str(k): v for k, v in row.items()} for row in hips.to_dict("records")}
    for hip_visit in sorted(drawn):
        hip, masks = rows[hip_visit], drawn[hip_visit]
        other = rows.get(f"{hip['study']}-{'R' if hip['side'] == 'L' else 'L'}")
        centre = None if other is None or other["status"] != "ok" else _centre(other)
        used = {mask["series"]: series[mask["series"]] for mask in masks if mask["series"] in series}
        free = sorted(reader for visit, reader in lesion_free if visit == hip_visit and reader != CONSENSUS)
        payload = {
            "hip": {name: hip[name] for name in ("hip_visit", "subject", "side")} | _named_centre(hip),
            "path": str(HIP_FILES / hip["file"]), "other": centre, "masks": masks, "series": used, "lesion_free": free,
        }  # fmt: skip
        made = [str(hip.get(name)) for name in ("digest", "input_digest", "params_digest", "code_digest")]
        digest = combine(*made, repr(sorted(payload.items())))
        todo.append(Item(hip_visit, digest, payload))
    return todo


def _why_not(origin: str, images: str | None) -> str:
    if images in (None, origin):
        return "its study has not arrived"
    return f"it was imported as {origin}, its images as {images} (annotate --origin)"


def finish(joined: Joined, masks: items.Rows, params: Params) -> None:
    """Write the tables and the reports; raises Refused when readers agree too little on something."""
    files = {row["hip_visit"]: row["owns"] for row in masks if isinstance(row.get("owns"), str) and row["owns"]}
    days = {hip: float(d) for hip, d in tables.read("hips", HIPS)[["hip_visit", "days"]].itertuples(index=False)}
    for row in masks:
        if row["status"] in ("accepted", "consensus"):
            joined.rows.append(
                {key: row[key] for key in ("hip_visit", "subject", "side", "reader", "name", "source")}
                | {"kind": "mask", "value": files[row["hip_visit"]], "days": days[row["hip_visit"]]}
            )
    derived_rows = derived.rows(joined.rows, [row | {"days": days[row["hip_visit"]]} for row in masks], params.derived)
    joined.rows += derived_rows
    tables.write("masks", MANIFEST, pd.DataFrame(masks, columns=None if masks else tables.empty("masks").columns))
    frame = pd.DataFrame(joined.rows) if joined.rows else tables.empty("annotations")
    order = ["kind", "subject", "side", "hip_visit", "name", "reader", "days", "source"]
    tables.write("annotations", ANNOTATIONS, frame, order)
    entries = agreement.table(joined.rows, masks, params.agreement)
    report.write(REPORTS, joined, masks, entries, params.agreement.differ)
    _say(joined, masks)
    low = agreement.below_floor(entries, params.agreement)
    if low:
        said = ", ".join(f"{e['name']} {e['measure']} {e['value']:.2f} (n={e['n_hips']} hip-visits)" for e in low)
        raise Refused(
            f"readers agree too little to train on: {said}; adjudicate {REPORTS}/disagreements.csv "
            "or change params.yaml annotate.agreement.floors"
        )


def _say(joined: Joined, masks: items.Rows) -> None:
    kinds = Counter(row["kind"] for row in joined.rows)
    status = Counter(row["status"] for row in masks)
    log.info("annotations: %s", ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none")
    if joined.waiting:
        log.info("%d annotations wait: %s", joined.waiting.total(), dict(sorted(joined.waiting.items())))
    if status["rejected"] or joined.refused:
        log.warning(
            "%d masks and %d rows were rejected; see %s/rejected.csv", status["rejected"], len(joined.refused), REPORTS
        )


def _visits(studies: pd.DataFrame, hips: pd.DataFrame, window: float) -> dict[str, tuple[list[Path], Visits]]:
    """{origin: (its imports, its visits)}: a phantom's annotations never meet a hospital's images."""
    folders: dict[str, list[Path]] = defaultdict(list)
    for folder in imports.listed():
        folders[imports.about(folder)["origin"]].append(folder)
    found = {}
    for origin, own in sorted(folders.items()):
        of_origin = studies[studies["origin"] == origin], hips[hips["origin"] == origin]
        found[origin] = own, Visits(*of_origin, join.merges(own), window)
    return found


def _series() -> dict[str, dict[str, Any]]:
    """{series UID: its study, and its stacks: affine (16), shape (3), frame of reference, slice_mm, sops, frames}, as
    far as `standardize` wrote them; where any of them were used, those alone."""
    known: dict[str, dict[str, Any]] = {}
    rows = tables.read("series", SERIES).to_dict("records")
    for row in sorted(rows, key=lambda row: row["status"] != "used"):
        entry = known.setdefault(row["series"], {"study": row["study"], "used": row["status"] == "used", "stacks": []})
        shape, affine = _numbers(row.get("shape")), _numbers(row.get("affine"))
        if affine is None or entry["used"] != (row["status"] == "used"):
            continue
        spacing = _numbers(row.get("spacing_mm"))
        sops, frames = row.get("sops"), row.get("frames")
        entry["stacks"].append({
            "affine": affine,
            "shape": shape,
            "frame": row.get("frame_of_reference") if isinstance(row.get("frame_of_reference"), str) else None,
            "slice_mm": spacing[0] if spacing else None,
            "sops": sops.split("+") if isinstance(sops, str) and sops else None,
            "frames": [float(n) for n in frames.split("+")] if isinstance(frames, str) and frames else None,
        })  # fmt: skip
    return known


def _numbers(value: Any) -> list[float] | None:
    return None if value is None or not hasattr(value, "__len__") or not len(value) else [float(v) for v in value]


def _centre(hip: dict[str, Any]) -> list[float]:
    return [float(hip[f"center_{axis}_mm"]) for axis in "xyz"]


def _named_centre(hip: dict[str, Any]) -> dict[str, float]:
    return {f"center_{axis}_mm": float(hip[f"center_{axis}_mm"]) for axis in "xyz"}

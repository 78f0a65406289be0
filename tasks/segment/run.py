"""Networks of each fold, masks of every hip-visit, and the report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.domain.hip import RESEARCH_ONLY
from tasks.segment.fold import Job, fit_fold, lesion_labels
from tasks.segment.params import Params
from tasks.segment.predict import LABELS, of_fold
from tasks.segment.visit import Visit, segment
from tasks.store import hips
from tasks.store.digests import code_digest, combine
from tasks.store.files import write_json
from tasks.store.items import Mapper
from tasks.training import curves, data, metrics, pictures
from tasks.training.metrics import none_if_nan
from tasks.training.progress import Progress

MODELS, SEGMENTS, REPORTS = Path("models/segment"), Path("data/segments"), Path("reports/segment")
SCORES = ("dice", "cldice", "surface_mm", "hd95_mm", "false_alarm")
_log = logging.getLogger("osteoflow.segment")


def run(params: Params, mapper: Mapper) -> None:
    for folder in (MODELS, SEGMENTS, REPORTS):
        folder.mkdir(parents=True, exist_ok=True)
    rows = data.cohort()
    training = rows[data.learnt_from(rows)].reset_index(drop=True)
    folds = data.folds(rows)
    with Progress(REPORTS / "run.jsonl", params) as progress:
        reason = _unfit(training, folds)
        records: dict[str, dict[str, Any]] = {}
        if reason:
            _log.warning("nothing is segmented: %s", reason)
        else:
            records = _train(params, training, folds, mapper)
        names = {kind: [name for name in records if name.startswith(f"{kind}-")] for kind in LABELS}
        for kind in LABELS:
            if not names[kind] and not reason:
                _log.warning("no network of %s: nobody drew %s", kind, " and ".join(LABELS[kind]))
        write_json(MODELS / "segment.json", {"networks": names, "folds": folds, "reason": reason})
        _sweep(MODELS, {f"{name}{end}" for name in records for end in (".safetensors", ".json")} | {"segment.json"})
        for name, record in records.items():
            progress.curve(name, record["history"])
        results = list(mapper(segment, _visits(params, rows, records))) if records else []
        _sweep(SEGMENTS, {one["file"] for one in results})
        _log.info("%d hip-visits segmented, %d of them anew", sum(bool(r["file"]) for r in results),
                  sum(r["made"] for r in results))  # fmt: skip
        found = _summary(results, params.bootstrap)
        about = {name: {key: record[key] for key in _ABOUT} for name, record in records.items()}
        write_json(REPORTS / "metrics.json", {"agreement": found, "reason": reason, "networks": about})
        for label, scores in found.items():
            for name in SCORES:
                if name in scores["network"] and scores["network"][name] is not None:
                    progress.metric("out_of_fold", f"{label}_{name}", scores["network"][name])
        histories = {name: [row["loss"] for row in record["history"]] for name, record in records.items()}
        _examples(rows[data.learnt_from(rows) & (rows["mask"] != "")] if results else rows.iloc[:0])
        progress.figure(REPORTS / "examples.svg")
        curves.write(REPORTS / "curves.svg", "Training loss of the segmentation networks", histories)
        progress.figure(REPORTS / "curves.svg")


_ABOUT = ("weights", "warm_started_from", "hip_visits", "steps")


def _unfit(training: pd.DataFrame, folds: list[str]) -> str:
    if not (training["mask"] != "").any():
        return "no training hip-visit has a mask"
    if len(folds) < 2:
        return "all training hip-visits lie in one fold"
    return ""


def _train(params: Params, training: pd.DataFrame, folds: list[str], mapper: Mapper) -> dict[str, dict[str, Any]]:
    lesion = lesion_labels(training, data.labels())
    augment, code = params.augment.digest(), code_digest("segment")
    own = {
        kind: combine(params.network, how.model_copy(update={"warm_epochs": 0}).digest(), augment, code)
        for kind, how in (("hip", params.hip), ("vessel", params.vessel))
    }
    jobs = [Job(params, kind, fold, training, lesion, own[kind], str(MODELS)) for kind in LABELS for fold in folds]
    results = zip(jobs, mapper(fit_fold, jobs), strict=True)
    return {job.name: record for job, record in results if record is not None}


def _visits(params: Params, rows: pd.DataFrame, records: dict[str, dict[str, Any]]) -> list[Visit]:
    code = code_digest("segment")
    visits = []
    for row in rows.itertuples():
        used = [name for names in of_fold(MODELS, str(row.fold)).values() for name in names]
        made_from = combine(str(row.digest), code, *(records[name]["weights"] for name in used))
        visits.append(
            Visit(
                str(row.hip_visit), str(row.subject), str(row.fold), str(row.path), str(row.mask), made_from,
                str(MODELS), str(SEGMENTS), params.vessel.skeleton_steps,
            )
        )  # fmt: skip
    return visits


def _summary(results: list[dict[str, Any]], resamples: int) -> dict[str, Any]:
    """{label: {"network" | "readers": {score, its interval, n hip-visits, n_patients}}}; network is out of fold."""
    scores = pd.DataFrame([row for one in results for row in one["scores"]])
    out: dict[str, Any] = {}
    if scores.empty:
        return out
    for (label, who), part in scores.groupby(["label", "who"]):
        row: dict[str, Any] = {}
        for name in SCORES:
            values = part[name] if name in part else pd.Series(dtype=float)
            if values.notna().any():
                one = metrics.clustered_bootstrap([values.astype(float)], part["subject"], metrics.mean, resamples)
                row |= {name: none_if_nan(one.value), f"{name}_low": none_if_nan(one.low)}
                row |= {f"{name}_high": none_if_nan(one.high), f"{name}_n": one.n, "n_patients": one.n_patients}
        out.setdefault(str(label), {"network": {}, "readers": {}})[str(who)] = row
    return out


def _examples(drawn: pd.DataFrame, count: int = 8) -> None:
    """Patients not seen, by lot: what the networks found beside what the readers drew."""
    shown = []
    for row in drawn.sort_values("digest").drop_duplicates("subject").head(count).itertuples():
        found = SEGMENTS / f"{row.hip_visit}.safetensors"
        if not found.exists():
            continue
        made, wanted, image = (
            hips.read(found).tensors,
            hips.read(Path(str(row.mask))).tensors,
            hips.read(Path(str(row.path))),
        )
        name = next((name for name in ("t1", "fluid", "contrast") if name in image.tensors), "")
        if not name or "head" not in made or made["head"].shape != image.tensors[name].shape:
            continue
        lesion = made["lesion"] if made["lesion"].any() else made["head"]
        at = int(lesion.sum((1, 2)).argmax())
        picture = pictures.grey(image.values(name)[at])
        for label, ours, readers in (("head", (0, 200, 255), (0, 90, 160)), ("lesion", (255, 140, 0), (180, 30, 30))):
            if f"{data.CONSENSUS}/{label}" in wanted:
                picture = pictures.outline(picture, wanted[f"{data.CONSENSUS}/{label}"][at] > 0, readers)
            picture = pictures.outline(picture, made[label][at] > 0, ours)
        shown.append((f"{str(row.hip_visit)[-18:]}, slice {at}", picture))
    title = (
        f"Head and lesion, patients not seen (n = {len(shown)}): bright the networks, dark the readers. {RESEARCH_ONLY}"
    )
    pictures.sheet(REPORTS / "examples.svg", title, shown)


def _sweep(folder: Path, wanted: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()

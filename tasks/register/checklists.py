"""TRIPOD+AI (27 items) and CLAIM 2024 (44 items) as tables, filled from what the run itself knows.

What only people can know (ethics, funding, protocol) says "not known". An answer is where the fact is, or the fact with
its n: it is never an opinion that the item is satisfied.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

UNKNOWN = "not known"
Facts = Mapping[str, Any]


def tables(facts: Facts, evaluate: Facts, sections: Facts) -> dict[str, str]:
    """{file name: CSV with the columns item, section, topic, answer, known}."""
    known = _answers(facts, evaluate, sections)
    return {f"{name}.csv": _csv(rows, known) for name, rows in (("tripod_ai", TRIPOD), ("claim_2024", CLAIM))}


def _answers(facts: Facts, evaluate: Facts, sections: Facts) -> dict[str, str]:
    """What is known, by a word of the tables below. A missing word is `not known`."""
    assemble, classify, forecast = (sections.get(name) or {} for name in ("assemble", "classify", "forecast"))
    horizon = facts.get("horizon_days")
    populations = evaluate.get("populations") or {}
    needed = {row["what"]: row for row in evaluate.get("required") or []}
    privacy = evaluate.get("privacy") or {}
    attack, alike = privacy.get("membership") or {}, privacy.get("anonymity") or {}
    found = {
        "title": f"{facts.get('name')}: estimated risk of progression of osteonecrosis of the femoral head",
        "objective": f"to develop and evaluate a model of progression within {horizon:g} days" if horizon else "",
        "source": f"origin {facts.get('origin')}: {facts.get('n_patients')} patients, {facts.get('n_hips')} hips, "
        f"{facts.get('n_hip_visits')} hip-visits; batches in the lineage",
        "scanners": "; ".join(facts.get("vendors") or []),
        "eligibility": _plain(assemble.get("eligibility")),
        "preparation": _plain((sections.get("standardize") or {}).get("visit_grid")),
        "deidentified": "PS3.15 Annex E with verification of every released file; docs/conformance.md",
        "outcome": f"collapse of {assemble.get('collapse_mm', '?')} mm or more, a stage up, arthroplasty as "
        f"{assemble.get('arthroplasty', '?')}, within {horizon:g} days after a visit" if horizon else "",
        "standard": "consensus of readers and dated outcomes as imported; reports/annotate",
        "agreement": "kappa, ICC and Dice between readers in reports/annotate, where two read",
        "predictors": f"{len(facts.get('features') or [])} inputs, named in forecast/inputs.json",
        "size": "; ".join(
            f"{what}: {row['needed']} needed ({row['assumes']}), {row['there_patients']} patients there"
            for what, row in needed.items()
        ),
        "missing": "imputed at the training mean with flags; abstains where more than "
        f"{forecast.get('max_missing_share', '?')} of the usual inputs are missing",
        "model": f"{classify.get('network', '?')} encoder; LSTM of {forecast.get('hidden', '?')} units over visits, "
        "residual on a penalized discrete-time hazard regression; forecaster.py in this package",
        "tuning": f"penalty among {forecast.get('ridge', '?')} and shares of few or all measurements, now or "
        "with the past, by inner cross-validation by patient",
        "start": "file and digest in params.json" if classify.get("pretrained") else "random, seeded",
        "ensemble": f"{len((facts.get('networks') or {}).get('forecast') or [])} members, one for each fold left out",
        "measures": "AUC, average precision, Brier score, calibration slope and intercept, decision curve; "
        "time-dependent AUC and Brier score with censoring weights",
        "uncertainty": str(evaluate.get("interval") or ""),
        "imbalance": "no resampling of outcomes in the forecaster; prevalence "
        f"{_number(evaluate.get('prevalence'))} in n = {evaluate.get('n')} hip-visits",
        "fairness": _worst(evaluate.get("subgroups") or []),
        "output": "a probability 0 to 1 with its interval, or an abstention with the reason; no class",
        "split": f"by patient: {facts.get('n_training_patients')} for training, {facts.get('n_test_patients')} frozen "
        f"for testing, {facts.get('n_external_patients', 0)} of external sites",
        "flow": "reports/evaluate/flow.csv and flow.svg",
        "cohort": "reports/evaluate/cohort.csv, by partition",
        "events": f"{facts.get('n_training_events')} events in training hip-visits; {evaluate.get('n_events')} of "
        f"{evaluate.get('n')} hip-visits in the population reported",
        "specification": "all weights as safetensors with code in this package",
        "performance": _performance(evaluate),
        "partitions": "; ".join(f"{name}: {_performance(one)}" for name, one in populations.items()),
        "heterogeneity": "reports/evaluate/subgroups.csv and vendors.csv (forecaster fitted without each maker)",
        "explained": "Grad-CAM of the encoder and its share inside the head, beside a network of random weights: "
        "reports/evaluate/attribution.json and .svg",
        "external": _performance(populations["external"]) if "external" in populations else "no external site so far",
        "failures": f"{(evaluate.get('abstentions') or {}).get('abstained', '?')} abstentions of "
        f"{(evaluate.get('abstentions') or {}).get('n', '?')} hip-visits, by reason in evaluate.json",
        "limits": str(evaluate.get("small_note") or "see the model card"),
        "updating": "retrained by policy; a challenger replaces the champion through the gate alone",
        "usability": "input_example.json, signature.json; missing series lead to an abstention with the reason",
        "code": "code, parameters and environment are in the lineage commit of this model",
        "privacy": f"membership attack AUC {_number(attack.get('auc'))} ({_number(attack.get('auc_low'))} to "
        f"{_number(attack.get('auc_high'))}; 0.5 is none); k = {alike.get('k')} over "
        f"{len(alike.get('over') or [])} traits",
        "research": "research use only, not for diagnosis",
    }  # fmt: skip
    return {word: text for word, text in found.items() if text}


def _csv(rows: list[tuple[str, str, str, str]], known: Mapping[str, str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["item", "section", "topic", "answer", "known"])
    for item, section, topic, words in rows:
        answer = "; ".join(known[word] for word in words.split() if word in known)
        writer.writerow([item, section, topic, answer or UNKNOWN, "yes" if answer else "no"])
    return out.getvalue()


def _plain(value: Any) -> str:
    return ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, Mapping) else ""


def _number(value: Any) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _performance(one: Facts) -> str:
    if one.get("auc") is None:
        return f"AUC not defined (n = {one.get('n', 0)} hip-visits)"
    return (
        f"AUC {_number(one['auc'])} ({_number(one.get('auc_low'))} to {_number(one.get('auc_high'))}), "
        f"n = {one.get('n')} hip-visits of {one.get('n_patients')} patients, {one.get('n_events')} events"
    )


def _worst(rows: list[Facts]) -> str:
    known = [row for row in rows if row.get("auc") is not None and row["subgroup"] in ("sex", "age_band")]
    if not known:
        return "no subgroup by sex or age holds both events and non-events"
    low = min(known, key=lambda row: float(row["auc"]))
    return f"lowest AUC by sex and age band: {_number(low['auc'])} ({low['level']}, n = {low['n']}); subgroups.csv"


TRIPOD = [
    ("1", "title", "kind of study, population, outcome", "title"),
    ("2", "abstract", "abstract by TRIPOD+AI for abstracts", ""),
    ("3a", "introduction", "healthcare context and rationale", ""),
    ("3b", "introduction", "target population, purpose, intended users", "research"),
    ("3c", "introduction", "known health inequalities", ""),
    ("4", "introduction", "objectives", "objective"),
    ("5a", "methods", "sources of data", "source"),
    ("5b", "methods", "dates of accrual and follow-up", ""),
    ("6a", "methods", "setting: centres, place", ""),
    ("6b", "methods", "eligibility", "eligibility"),
    ("6c", "methods", "treatments received and how handled", "predictors"),
    ("7", "methods", "data preparation", "preparation deidentified"),
    ("8a", "methods", "outcome and time horizon", "outcome"),
    ("8b", "methods", "who assessed the outcome", "standard"),
    ("8c", "methods", "blinding of outcome assessment", ""),
    ("9a", "methods", "choice of initial predictors", ""),
    ("9b", "methods", "definition and measurement of predictors", "predictors scanners"),
    ("9c", "methods", "who assessed predictors", ""),
    ("10", "methods", "sample size", "size"),
    ("11", "methods", "missing data", "missing"),
    ("12a", "methods", "use of the data, partitions", "split"),
    ("12b", "methods", "handling of predictors", "predictors"),
    ("12c", "methods", "type of model, building, tuning", "model tuning"),
    ("12d", "methods", "heterogeneity between clusters", "heterogeneity"),
    ("12e", "methods", "measures of performance", "measures uncertainty"),
    ("12f", "methods", "model updating", "updating"),
    ("12g", "methods", "how predictions were calculated", "specification"),
    ("13", "methods", "class imbalance", "imbalance"),
    ("14", "methods", "fairness", "fairness"),
    ("15", "methods", "model output and thresholds", "output"),
    ("16", "methods", "differences between development and evaluation data", "cohort"),
    ("17", "methods", "ethical approval and consent", ""),
    ("18a", "open science", "funding", ""),
    ("18b", "open science", "conflicts of interest", ""),
    ("18c", "open science", "protocol", ""),
    ("18d", "open science", "registration", ""),
    ("18e", "open science", "availability of data", ""),
    ("18f", "open science", "availability of code", "code"),
    ("19", "patient and public involvement", "involvement of patients and the public", ""),
    ("20a", "results", "flow of participants", "flow"),
    ("20b", "results", "characteristics", "cohort"),
    ("20c", "results", "development against evaluation", "cohort partitions"),
    ("21", "results", "participants and events of each analysis", "events"),
    ("22", "results", "full model", "specification"),
    ("23a", "results", "performance with intervals, in subgroups", "performance heterogeneity"),
    ("23b", "results", "heterogeneity in performance", "heterogeneity"),
    ("24", "results", "results of updating", "updating"),
    ("25", "discussion", "interpretation, fairness", ""),
    ("26", "discussion", "limitations", "limits"),
    ("27a", "discussion", "handling of poor or missing input", "usability"),
    ("27b", "discussion", "interaction of users", "research"),
    ("27c", "discussion", "next steps", ""),
]
CLAIM = [
    ("1", "title", "AI methodology named", "title"),
    ("2", "abstract", "structured abstract", ""),
    ("3", "introduction", "background, role of the approach", ""),
    ("4", "introduction", "objectives", "objective"),
    ("5", "methods", "prospective or retrospective", ""),
    ("6", "methods", "study goal", "objective"),
    ("7", "methods", "data sources", "source"),
    ("8", "methods", "inclusion and exclusion", "eligibility flow"),
    ("9", "methods", "preprocessing", "preparation"),
    ("10", "methods", "selection of data subsets", "flow"),
    ("11", "methods", "de-identification", "deidentified privacy"),
    ("12", "methods", "missing data", "missing"),
    ("13", "methods", "image acquisition", "scanners"),
    ("14", "methods", "definition of the reference standard", "outcome"),
    ("15", "methods", "rationale for the reference standard", ""),
    ("16", "methods", "source of annotations", "standard"),
    ("17", "methods", "annotation of the test set", "standard"),
    ("18", "methods", "variability of annotation", "agreement"),
    ("19", "methods", "assignment to partitions", "split"),
    ("20", "methods", "level at which partitions are disjoint", "split"),
    ("21", "methods", "intended sample size", "size"),
    ("22", "methods", "description of the model", "model"),
    ("23", "methods", "software and packages", "code"),
    ("24", "methods", "initialization", "start"),
    ("25", "methods", "training approach", "tuning"),
    ("26", "methods", "selection of the final model", "updating"),
    ("27", "methods", "ensembling", "ensemble"),
    ("28", "methods", "metrics", "measures"),
    ("29", "methods", "measures of uncertainty", "uncertainty"),
    ("30", "methods", "robustness", "heterogeneity"),
    ("31", "methods", "explainability", "explained"),
    ("32", "methods", "evaluation on internal data", "performance"),
    ("33", "methods", "testing on external data", "external"),
    ("34", "methods", "trial registration", ""),
    ("35", "results", "numbers included and excluded", "flow"),
    ("36", "results", "demographics and characteristics by partition", "cohort"),
    ("37", "results", "performance on all partitions", "partitions"),
    ("38", "results", "estimates with their precision", "performance"),
    ("39", "results", "analysis of failures", "failures"),
    ("40", "discussion", "limitations", "limits"),
    ("41", "discussion", "implications for practice", "research"),
    ("42", "other", "registration and protocol", ""),
    ("43", "other", "availability of software, model, data", "code specification"),
    ("44", "other", "funding", ""),
]

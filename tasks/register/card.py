"""The model card, in Markdown, from the facts of the package and of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.domain.hip import RESEARCH_ONLY

POPULATION = {
    "test": "frozen test patients, never used for training or tuning",
    "out_of_fold": "out-of-fold predictions (the test patients do not hold both events and non-events yet)",
    "none": "no population that can be scored yet",
}


def card(facts: Mapping[str, Any], evaluate: Mapping[str, Any]) -> str:
    months = "unknown" if facts["horizon_days"] is None else f"{facts['horizon_days']:g} days"
    lines = [
        f"# {facts['name']}",
        "",
        f"**{RESEARCH_ONLY}**",
        "",
        "## What it is",
        "",
        "An estimate, for one hip at one visit, of the risk that osteonecrosis of the femoral head progresses within "
        f"{months}: collapse of 2 mm or more, a stage up, or arthroplasty where the parameters count it. "
        "Features of the MRI by a convolutional network and measurements of lesion, collapse and vessels go through an "
        "LSTM over the hip's visits, residual on a logistic baseline. It returns an estimated risk with its interval, "
        "or abstains with the reason.",
        "",
        "## Intended use",
        "",
        "Research on retrospective or prospective cohorts with ethics approval. Not for diagnosis, not for choosing a "
        "treatment, not for patients whose scanner, protocol or stage the training data do not hold. Differences "
        "between treatments in its inputs are associations.",
        "",
        "## Data",
        "",
        f"- origin: {facts['origin']}"
        + (" (synthetic hips: this model must not score a patient)" if facts["origin"] == "phantom" else ""),
        f"- {facts['n_patients']} patients, {facts['n_hips']} hips, {facts['n_hip_visits']} hip-visits; "
        f"{facts['n_training_patients']} patients for training ({facts['n_training_events']} events), "
        f"{facts['n_test_patients']} frozen for testing; split by patient",
        f"- scanners: {', '.join(facts['vendors']) or 'not recorded'}",
        "- de-identified by PS3.15 before anything here read them; pseudonyms and dates are keyed and shifted",
        "",
        "## Scores",
        "",
        f"Population: {POPULATION.get(str(evaluate.get('population')), 'not stated')}. Unit: hip-visit. "
        f"n = {evaluate.get('n', 'unknown')} hip-visits of {evaluate['n_patients']} patients, "
        f"{evaluate['n_events']} events. Intervals: {evaluate.get('interval', '95%')}.",
        "",
        "| measure | value (95% interval) | ideal |",
        "|---|---|---|",
    ]
    for name, label, ideal in (
        ("auc", "AUC", "1"),
        ("average_precision", "average precision", "1"),
        ("brier", "Brier score", "0"),
        ("slope", "calibration slope", "1"),
        ("intercept", "calibration intercept", "0"),
    ):
        lines.append(f"| {label} | {_interval(evaluate, name)} | {ideal} |")
    for name, row in sorted(evaluate.get("baselines", {}).items()):
        lines.append(f"| AUC of {name} (n = {row['n']}) | {_interval(row, 'auc')} | 1 |")
    lines += [f"| AUC at {row['time_days']:g} days, censoring weights (n = {row['n']}) | {_interval(row, 'auc')} | 1 |"
              for row in evaluate.get("survival") or []
              if row["model"] == "model" and row["population"] == evaluate.get("population")]  # fmt: skip
    external = (evaluate.get("populations") or {}).get("external")
    if external:
        lines.append(f"| AUC at external sites (n = {external['n']}) | {_interval(external, 'auc')} | 1 |")
    if evaluate.get("small_note"):
        lines += ["", f"**{evaluate['small_note']}**"]
    lines += [
        "",
        *_needed(evaluate),
        *_privacy(evaluate),
        "## Limits",
        "",
        "- Small cohorts: the interval is the statement, the number in its middle is not.",
        *([] if external else ["- No external validation is part of this package."]),
        "- Scanners and cohorts not listed above are unknown to it.",
        "- Censored hip-visits train it but are not in the scores above.",
        "- Vessel measurements exist only where a contrast-enhanced series of 1.5 mm or finer exists.",
        "- It can abstain; an abstention is not a low risk.",
        "",
    ]
    return "\n".join(lines)


def _needed(evaluate: Mapping[str, Any]) -> list[str]:
    rows = evaluate.get("required") or []
    lines = [
        f"- {row['what']}: {row['needed']} independent patients needed ({row['assumes']}); there are "
        f"{row['there_patients']} patients with {row['there_hip_visits']} hip-visits and {row['there_events']} events"
        for row in rows
    ]
    return ["## How many patients it would take (Riley et al.)", "", *lines, ""] if rows else []


def _privacy(evaluate: Mapping[str, Any]) -> list[str]:
    found = evaluate.get("privacy") or {}
    attack, alike = found.get("membership") or {}, found.get("anonymity") or {}
    if not found:
        return []
    said = attack.get("reason") or (
        f"AUC {_interval(attack, 'auc')} over {attack.get('n_members')} training and {attack.get('n_others')} test "
        "patients; 0.5 is a guess"
    )
    return [
        "## Privacy",
        "",
        f"- membership inference (who was trained on, by how well the outcomes are fitted): {said}",
        f"- k = {alike.get('k')} over {', '.join(alike.get('over') or [])}; {alike.get('patients_below')} of "
        f"{alike.get('n_patients')} patients share theirs with fewer than {alike.get('below')}",
        "",
    ]


def _interval(row: Mapping[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "not defined"
    if row.get(f"{name}_low") is None:
        return f"{row[name]:.2f} (no interval: too few patients)"
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"

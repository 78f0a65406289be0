"""Facts and workspace to HTML, by the templates in this folder."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.domain.hip import RESEARCH_ONLY
from tasks.publish.gather import Facts, read_report, read_site
from tasks.publish.timeline import timeline
from tasks.store.files import write_text

HERE = Path(__file__).resolve().parent
PAGES = ("index", "models", "studies", "batches")


def report(facts: Facts, out: Path) -> Path:
    """Write the self-contained report to `out`; returns it."""
    root = Path(facts.get("root", "."))
    write_text(out, _render("report.html", read_report(facts) | {"patient": timeline(root)}))
    return out


def site(facts: Facts, out: Path) -> Path:
    """Write index.html, models.html, studies.html, batches.html and report.html below `out`; returns index.html."""
    shown = read_report(facts) | read_site(facts)
    for page in PAGES:
        write_text(out / f"{page}.html", _render(f"{page}.html", shown | {"page": page, "pages": PAGES}))
    report(facts, out / "report.html")
    return out / "index.html"


def _render(template: str, values: dict[str, Any]) -> str:
    return _templates().get_template(template).render(values | {"research_only": RESEARCH_ONLY, "svg": Markup})


@cache
def _templates() -> Environment:
    folder = HERE / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (interval, number, short, words, plain, count_of):
        environment.filters[function.__name__] = function
    environment.globals["style"] = Markup((folder / "style.css").read_text(encoding="utf-8"))
    return environment


def interval(row: dict[str, Any], name: str, digits: int = 2) -> str:
    """'0.81 (0.70 to 0.90)': a value with its 95% interval, or why there is none."""
    value, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "not defined"
    if low is None or high is None:
        return f"{value:.{digits}f} (no interval)"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def number(value: Any, digits: int = 2) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "not known"
    if isinstance(value, float):
        if 0 < value < 0.5 * 10**-digits:
            return f"<{10**-digits:g}"
        return f"{value:.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.{digits}f}"
    return str(value)


def short(digest: Any) -> str:
    return str(digest)[:12] if digest else "none"


NAMES = {
    "lr_last": "logistic, last visit", "jic": "JIC type", "kerboul": "Kerboul angle", "cox": "Cox",
    "arco": "ARCO stage", "vessel_length_mm": "vessel length",
}  # fmt: skip


def words(name: Any) -> str:
    return NAMES.get(str(name), str(name).replace("_", " "))


def count_of(kind: str, n: int) -> str:
    """'1 study', '24 patients': a kind of node and how many."""
    one, many = {
        "subject": ("patient", "patients"),
        "study": ("study", "studies"),
        "batch": ("batch", "batches"),
    }.get(kind, (words(kind), f"{words(kind)}s"))
    return f"{n} {one if n == 1 else many}"


def plain(value: Any) -> str:
    """Anything from a decision as text: lists as intervals, dicts as JSON."""
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(isinstance(v, (int, float)) for v in value):
        return f"{value[0]:+.3f} ({value[1]:+.3f} to {value[2]:+.3f})"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value)
    return number(value, 3)

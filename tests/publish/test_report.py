"""The report and the audit site as a reader gets them."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.publish import report, site
from tasks.publish.images import png
from tasks.publish.timeline import choose


class Checker(HTMLParser):
    """Every tag that is opened is closed; collects what a page would fetch."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("data:", "#"))]

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


def test_the_report_is_one_file_without_script_or_anything_fetched(workspace, facts):
    text = report(facts, Path("reports/report.html")).read_text()
    page = check(text)
    assert page.fetched == [] and "script" not in page.tags and "link" not in page.tags
    assert "url(" not in text and "@import" not in text
    assert "&lt;script&gt;" in text  # what the flow hands in is escaped


def test_it_shows_what_a_reader_asks_for(workspace, facts):
    text = report(facts, Path("reports/report.html")).read_text()
    for words in (
        "Research use only, not for diagnosis.",
        "phantoms",
        "0.81 (0.60 to 0.95)",
        "12 hip-visits",
        "mobilenet_v3_large",
        "vascularized bone graft",
        "associated with",
        "OFAAAA",
        "core decompression (L)",
        "collapse (L)",
        "a" * 40,
        "f" * 64,
        "first version",
        "+0.020 (-0.010 to +0.050)",
        "not dicom",
        "frozen test patient",
        "Estimated risk",
    ):
        assert words in text, words
    assert not re.search(r"\bwill\b", text)


def test_networks_are_shown_with_every_score_and_what_they_cost(workspace, facts):
    page = report(facts, Path("reports/report.html")).read_text()
    part = page[page.index("Networks compared") : page.index("Treatment response")]
    best, other = (re.findall(rf"<tr[^>]*><td>{name}</td>.*</tr>", part) for name in ("mobilenet_v3_large", "resnet18"))
    assert "0.870 (0.700 to 0.930)" in best[0] and "0.100 (no interval)" in best[0]
    assert re.findall(r"<td class=\"n\">([^<]*)</td>", best[1]) == ["4.20", "226.4", "281.3"]
    assert re.findall(r"<td class=\"n\">([^<]*)</td>", other[1]) == ["11.18", "1818.6", "not known"], "never guessed"
    assert "F1" in part and "Brier" in part and "0.2" in other[0]


def test_images_show_the_lesion(workspace, facts):
    text = report(facts, Path("reports/report.html")).read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(images) == 3
    from io import BytesIO

    from matplotlib.image import imread

    pixels = imread(BytesIO(base64.b64decode(images[0])))
    assert pixels.shape == (40, 40, 3)
    assert (np.abs(pixels - np.array([1.0, 120 / 255, 0])).max(axis=2) < 0.01).sum() > 10


def test_nothing_there_yet_is_said_not_raised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = report({}, Path("report.html")).read_text()
    check(text)
    assert "nothing has been evaluated yet" in text and "No patient with an estimate yet" in text
    site({}, Path("site"))
    for page in Path("site").iterdir():
        check(page.read_text())


@pytest.mark.parametrize("name", ["annotations", "hips", "studies"])
def test_a_missing_table_leaves_a_gap_only(workspace, facts, name):
    Path(f"data/{name}.parquet").unlink()
    check(report(facts, Path("reports/report.html")).read_text())
    site(facts, Path("reports/site"))


def test_the_site_has_its_pages_and_their_links_lead_somewhere(workspace, facts):
    index = site(facts, Path("reports/site"))
    for page in index.parent.iterdir():
        for link in check(page.read_text()).fetched:
            assert (index.parent / link).exists(), link
        assert "Research use only" in page.read_text()
    assert "2.25.65" in (index.parent / "studies.html").read_text()
    assert "000001" in (index.parent / "batches.html").read_text()


def test_the_same_facts_are_the_same_bytes(workspace, facts):
    first = report(facts, Path("reports/report.html")).read_bytes()
    assert report(facts, Path("reports/report.html")).read_bytes() == first


def test_the_patient_shown_is_a_test_patient_with_an_event():
    rows = pd.DataFrame(
        {
            "subject": ["a", "a", "b", "c", "c"],
            "fold": ["0", "0", "test", "test", "test"],
            "label": [1.0, 1.0, 0.0, 1.0, 0.0],
            "days": [0, 1, 0, 0, 1],
            "risk": 0.5,
        }
    )
    assert choose(rows) == "c"
    assert choose(rows.assign(risk=np.nan)) is None


def test_a_png_is_read_back_as_it_was():
    from io import BytesIO

    from matplotlib.image import imread

    image = np.random.default_rng(0).integers(0, 255, (7, 5, 3)).astype(np.uint8)
    data = base64.b64decode(png(image).split(",", 1)[1])
    assert np.array_equal(np.round(imread(BytesIO(data)) * 255).astype(np.uint8), image)

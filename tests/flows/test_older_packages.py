"""Packages that an earlier version registered: they score by today's rule of eligibility, or are refused plainly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.scoring import section
from tasks import assemble, measure
from tasks.domain.errors import WrongUse

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))


def package(folder: Path, sections: dict[str, Any]) -> Path:
    """A package's folder below a workspace whose params.yaml lets nobody under 21 in."""
    today = PARAMS | {"assemble": PARAMS["assemble"] | {"eligibility": PARAMS["assemble"]["eligibility"] | {
        "min_age_years": 21}}}  # fmt: skip
    (folder / "params.yaml").write_text(json.dumps(today), encoding="utf-8")
    (folder / "v3").mkdir()
    (folder / "v3/params.json").write_text(json.dumps(sections), encoding="utf-8")
    return folder / "v3"


def test_from_before_eligibility_it_goes_by_the_rule_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    old = {key: value for key, value in PARAMS["assemble"].items() if key != "eligibility"} | {"horizon_days": 200}
    found = section(package(tmp_path, {"assemble": old}), "assemble", assemble.Params)
    assert (found.eligibility.min_age_years, found.horizon_days) == (21, 200)


def test_a_package_that_has_its_own_rule_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = section(package(tmp_path, {"assemble": PARAMS["assemble"]}), "assemble", assemble.Params)
    assert found.eligibility.min_age_years == 18


@pytest.mark.parametrize("change", ["lacks", "unknown", "no section"])
def test_what_decides_how_a_number_is_made_is_never_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.chdir(tmp_path)
    own = dict(PARAMS["measure"])
    if change == "lacks":
        del own["smooth_mm"]
    if change == "unknown":
        own["thinning"] = "lee"
    made = package(tmp_path, {} if change == "no section" else {"measure": own})
    with pytest.raises(WrongUse, match=r"another version of osteoflow.*train again") as error:
        section(made, "measure", measure.Params)
    assert "params.yaml" not in str(error.value)
    if change != "no section":
        assert {"lacks": "measure.smooth_mm", "unknown": "measure.thinning"}[change] in str(error.value)

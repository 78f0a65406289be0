"""Acquisitions in which a head was once found where none is, and called one (tests/support/awkward; the whole battery
is `python -m bench heads`): the necks beside collapsed heads, a trochanter, a ball too small or too doubtful opposite a
sure head."""

from __future__ import annotations

import pytest
from awkward import acquired, judged

from tasks.standardize.locate import locate
from tasks.standardize.params import Params

ONCE_WRONG = [
    ("one axial", "bodies", 6), ("fluid", "phantom", 5), ("collapsed", "torsos", 5), ("child", "torsos", 4),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "maker", "seed"), ONCE_WRONG)
def test_what_is_called_a_head_is_one(kind: str, maker: str, seed: int, params: Params) -> None:
    case = acquired(kind, maker, seed)
    answers = judged(case, locate(case.image, case.polarity, params.localizer))
    assert all(what != "wrong" for _, what, _ in answers), answers

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.measure.measure import run
from tasks.measure.params import Params
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.measure`: measure every hip-visit from its predicted masks."""
    enter("measure", Params, run, params, mapper, preload=("scipy.ndimage", "skimage.morphology"))


if __name__ == "__main__":
    exit_with(main)

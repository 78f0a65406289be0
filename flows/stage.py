"""How one DVC stage runs inside a flow: in this warm process, with the dependency hashes frozen before the run.

DVC hashes dependencies after a run (treeverse/dvc#11058), so a scan that arrives meanwhile would be recorded as used
though it was not. Here they are hashed first and those hashes are what dvc.lock gets: the next run sees the scan.
The lock file is byte for byte that of `dvc repro`, the oracle that a test holds this against.
"""

from __future__ import annotations

import importlib
import logging
import random
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.rwlock import RWLockFileCorruptedError, RWLockFileFormatError
from dvc.stage import Stage

from flows.directories import hasten
from flows.mended import keep
from tasks.domain.errors import Unavailable, WrongUse
from tasks.store.items import Mapper

log = logging.getLogger("osteoflow.stage")
logging.getLogger("dvc").setLevel(logging.ERROR)  # its hints to `git add` are not for the users of a flow
T = TypeVar("T")

LOCK_PATIENCE_S = 120.0
"""How long a stage waits for DVC's repository lock: another process commits its own stage within seconds."""


@dataclass(frozen=True)
class StageRun:
    """What happened: `ran` is False when nothing had changed. Seconds of the function and of everything around it."""

    name: str
    ran: bool
    function_s: float
    overhead_s: float


def run_stage(
    name: str,
    mapper: Mapper | None = None,
    repo: Repo | None = None,
    before: Callable[[dict[str, Any]], object] | None = None,
) -> StageRun:
    """Run the stage `name` of dvc.yaml if it changed, and record it. The only writer of dvc.lock in a flow.

    `before` is called with the frozen parameters first: workers elsewhere may do parts of a changed stage.
    """
    started = time.perf_counter()
    repo = repo or Repo(".")
    with locked(repo):
        stage = load(repo, name)
        if not patiently(stage.changed, repo):
            return StageRun(name, False, 0.0, time.perf_counter() - started)
        params = freeze_dependencies(stage)
        patiently(lambda: stage.remove_outs(ignore_remove=False, force=False), repo)
    called = time.perf_counter()
    if before is not None:
        before(params)
    call(stage, params, mapper)
    function_s = time.perf_counter() - called
    with locked(repo):
        # save_outs() only: the dependencies keep the hashes (and parameters) taken before the run.
        stage.save_outs()
        stage.md5 = stage.compute_md5()
        patiently(stage.commit, repo)
        keep(Path(repo.root_dir))
        patiently(lambda: stage.dump(update_pipeline=False), repo)
    return StageRun(name, True, function_s, time.perf_counter() - started - function_s)


def freeze_dependencies(stage: Stage) -> dict[str, Any]:
    """Hash the dependencies as they are now; returns the parameters as read at the same moment."""
    path = Path(stage.repo.root_dir) / "params.yaml"
    while True:
        before = path.read_bytes()
        stage.save_deps()
        if path.read_bytes() == before:
            return yaml.safe_load(before) or {}


def load(repo: Repo, name: str) -> Stage:
    return hasten(repo.stage.load_one(name=name))


def call(stage: Stage, params: dict[str, Any], mapper: Mapper | None) -> None:
    """`cmd: python -m tasks.X ARGS` becomes `tasks.X.__main__.main(ARGS)` in this process."""
    words = shlex.split(stage.cmd)
    if len(words) < 3 or words[:2] != ["python", "-m"] or not words[2].startswith("tasks."):
        raise WrongUse(f"dvc.yaml: {stage.addressing}: cmd must be 'python -m tasks.<room> ...', not '{stage.cmd}'")
    main = importlib.import_module(f"{words[2]}.__main__").main
    main(words[3:], params=params, mapper=mapper)


@contextmanager
def locked(repo: Repo) -> Iterator[None]:
    """DVC's repository lock, waited for: concurrent commits of other stages raise LockError at once otherwise."""
    context = lock_repo(repo)
    patiently(context.__enter__, repo)
    try:
        yield
    except BaseException as error:
        if not context.__exit__(type(error), error, error.__traceback__):
            raise
    else:
        context.__exit__(None, None, None)


def patiently(action: Callable[[], T], repo: Repo) -> T:
    """Repeat `action` while DVC's locks are held; a read-write lock file cut short by a crash is removed."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            return action()
        except (RWLockFileCorruptedError, RWLockFileFormatError):
            log.warning("a crash left a damaged DVC lock file; removing it")
            Path(repo.tmp_dir, "rwlock").unlink(missing_ok=True)
        except LockError as error:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"DVC's lock was held for {LOCK_PATIENCE_S:.0f} s; is another run hanging?"
                ) from error
            time.sleep(random.uniform(0.05, 0.3))

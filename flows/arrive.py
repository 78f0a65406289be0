"""The arrival loop: what is complete is anonymized, verified, standardized and scored, a study at a time.

    settle → lease → anonymize + verify → standardize → score → mark

The ledger is the truth; Prefect's event is a hint that makes it fast, and the sweep finds what the hint missed. The
rooms' `process` is called here and by the dataset loop alike; what is made here lies in OSTEOFLOW_HOME/arrived/ until a
dataset run adopts it.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import prefect
from prefect.context import FlowRunContext
from rich.console import Console

from flows import known
from flows.given import Given, giving
from flows.progress import bar
from flows.supervise import started
from tasks import anonymize, receive, standardize
from tasks.domain.errors import BadInput, OsteoflowError, Unavailable, WrongUse
from tasks.domain.params import load
from tasks.domain.settings import Settings
from tasks.ledger import STATES, Ledger, StudyVersion
from tasks.standardize.params import Params as StandardizeParams
from tasks.standardize.stage import visits
from tasks.store import items
from tasks.store.items import Mapper

log = logging.getLogger("osteoflow.arrive")

P = ParamSpec("P")
T = TypeVar("T")

LEASE_S = 600.0
"""A worker that dies gives its studies back after this long."""
CHUNK = 64
"""Studies leased at a time: what one death delays."""
OF_THE_MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.EACCES, errno.EPERM,
}  # fmt: skip
PATIENCE = 3
"""Times that a study may fail alone: a process that was killed is no fault of its."""


def ingest(
    src: Path, origin: str = "hospital", console: Console | None = None, mapper: Mapper | None = None
) -> dict[str, Any]:
    """A folder of DICOM through the arrival loop, now. The folder is taken as complete: no quiet time is waited for."""
    settings, ledger = Settings().ensure(), Ledger.open()
    held = ledger.quarantined()
    params = load("receive", receive.Params)
    with bar(console, "received") as progress:
        summary = receive.ingest(src, ledger, settings.site, origin, params, progress=progress)
    receive.settle(ledger, params, force=True, only=summary.row_keys)
    drawn = 0
    if summary.annotations:
        from flows.annotations import take_inbox

        drawn = take_inbox(ledger, params.stable_seconds, sent_seconds=0.0)
    with giving(mapper, console):
        worked = arrive()
    now = ledger.quarantined()
    newly = {reason: count - held.get(reason, 0) for reason, count in now.items() if count > held.get(reason, 0)}
    return {
        "files": summary.files,
        **worked,
        "annotations": drawn,
        "quarantined": newly,
        "duplicates": summary.duplicates,
    }


@prefect.flow(name="arrive", persist_result=False)
def arrive() -> dict[str, int]:
    """Work on everything that is complete; returns how many studies were made, and how many were scored."""
    with giving() as given:
        ledger = Ledger.open()
        receive.settle(ledger, load("receive", receive.Params))
        owner = _owner()
        # A process works on one arrival at a time: what it holds is of one that died when the ledger did not answer.
        ledger.release_leases(lambda holder: holder == owner or _is_gone(holder))
        done = scored = 0
        while True:
            versions = ledger.lease(limit=CHUNK, owner=owner, seconds=LEASE_S)
            done += _work(ledger, versions, given, owner) if versions else 0
            # What a dataset run has finished with has out-of-fold estimates; `osteoflow score` does those too.
            rows, left = score_new(ledger, given, ("complete", "claimed"), CHUNK)
            scored += len({row["study"] for row in rows})
            if not versions and not left:
                return {"studies": done, "scored": scored}


@prefect.flow(name="sweep", persist_result=False)
def sweep() -> dict[str, int]:
    """What a hint missed. The same work, on a schedule."""
    return arrive()


def _work(ledger: Ledger, versions: list[StudyVersion], given: Given, owner: str) -> int:
    """How many of these studies went through. When a chunk fails each of its studies is tried alone, and without
    Prefect: one study keeps no other waiting. One that fails so again and again is quarantined."""
    done = 0
    try:
        with _kept(ledger, [version.row_key for version in versions], owner):
            try:
                return len(prepare_studies(ledger, versions, given, _task))
            except Exception as error:  # whatever a reader of foreign files, or Prefect, dies of
                if _is_ours(error):
                    raise
                log.warning("a chunk of %d studies failed (%s): each alone", len(versions), type(error).__name__)
            for version in versions:
                try:
                    done += len(prepare_studies(ledger, [version], given))
                except Exception as error:  # now it is clear by whose doing
                    if _is_ours(error):
                        raise
                    _failed(ledger, version.row_key, error)
    finally:
        for version in versions:
            ledger.release_lease(version.row_key, owner)
    return done


def _is_ours(error: Exception) -> bool:
    """The key, the parameters, the ledger or the disk: no study's doing, and nothing that another study is spared."""
    if isinstance(error, OSError):  # Pillow's errors are OSErrors too, without a number
        return error.errno in OF_THE_MACHINE
    return isinstance(error, OsteoflowError) and not isinstance(error, BadInput)


def _failed(ledger: Ledger, row_key: str, error: Exception) -> None:
    note = f"failures of {row_key}"
    times = int(ledger.recall(note) or 0) + 1
    log.warning("study %s failed %d times: %s", row_key, times, type(error).__name__)
    if isinstance(error, BadInput):
        ledger.quarantine(row_key, error.reason, error.detail)
    elif times < PATIENCE:
        ledger.remember(note, str(times))
    else:
        ledger.quarantine(row_key, "processing_failed", f"{type(error).__name__}, {times} times in the arrival loop")


# ---- leases ---------------------------------------------------------------------------------------------------------


def _owner() -> str:
    """This process, told apart from a later one with the same number (in a container it often has)."""
    return f"{platform.node()}:{os.getpid()}:{started(os.getpid())}"


def _is_gone(owner: str) -> bool:
    """Whether the process that holds a lease has died; one of another machine is waited for until its lease expires."""
    host, _, rest = owner.partition(":")
    pid, _, since = rest.partition(":")
    if host != platform.node() or not pid.isdigit():
        return False
    now = started(int(pid))
    return now == "" or now != since


@contextmanager
def _kept(ledger: Ledger, row_keys: list[str], owner: str) -> Iterator[None]:
    """The leases are extended while the work goes on, however long it takes."""
    ended = threading.Event()

    def extend() -> None:
        while not ended.wait(LEASE_S / 4):
            try:
                for row_key in row_keys:
                    ledger.extend_lease(row_key, owner, LEASE_S)
            except Unavailable:
                log.debug("leases could not be extended now")

    thread = threading.Thread(target=extend, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _task(name: str, function: Callable[P, T]) -> Callable[P, T]:
    """A Prefect task in a Prefect flow; the function itself when the flow runs without Prefect."""
    if FlowRunContext.get() is None:
        return function
    return prefect.task(name=name, persist_result=False)(function)


# ---- anonymize, verify, standardize ---------------------------------------------------------------------------------


def prepare_studies(
    ledger: Ledger, versions: list[StudyVersion], given: Given, task: Callable[[str, Any], Any] = lambda _, made: made
) -> list[str]:
    """Two steps over a chunk of studies, each mapped over the pool; row keys of what went through. `task` makes each
    a task of Prefect."""
    keys = [version.row_key for version in versions]
    rows = task("anonymize", _anonymize_all)(keys)
    passed: list[str] = []
    fresh: list[dict[str, Any]] = []
    for row_key, made in zip(keys, rows, strict=True):
        refused = next((row for row in made if row["status"] == "quarantined"), None)
        if refused is not None:
            ledger.quarantine(row_key, refused["reason"], "anonymize would not release it")
        else:
            passed.append(row_key)
            fresh += made
    task("standardize", _standardize_all)(sorted({r["study"] for r in fresh}))
    for row_key in passed:
        ledger.mark_arrived(row_key)
    return passed


def _anonymize_all(row_keys: list[str]) -> list[list[dict[str, Any]]]:
    params = load("anonymize", anonymize.Params)
    with giving() as given:
        return list(given.mapper(_anonymize_one, [(row_key, params) for row_key in row_keys]))


def _anonymize_one(work: tuple[str, anonymize.Params]) -> list[dict[str, Any]]:
    row_key, params = work
    with Ledger.open() as ledger:
        version = ledger.get(row_key)
    if version is None:
        raise WrongUse(f"study version {row_key} is not in the ledger any more")
    rows, _ = items.arrive("anonymize", anonymize.item_of(version), anonymize.process, params)
    return rows


def _standardize_all(studies: list[str]) -> None:
    """The visits to which `studies` belong: a visit is all of a subject's studies within the window."""
    params = load("standardize", StandardizeParams)
    work = []
    for _, group in known.studies(studies).groupby("subject"):
        for visit in visits(group.to_dict("records"), params):
            if any(study["study"] in studies for study in visit):
                work.append((standardize.visit_item(visit), params))
    with giving() as given:
        list(given.mapper(_standardize_one, work))


def _standardize_one(work: tuple[items.Item, StandardizeParams]) -> None:
    item, params = work
    items.arrive("standardize", item, standardize.process, params)


# ---- score ----------------------------------------------------------------------------------------------------------


def score_new(
    ledger: Ledger, given: Given, states: tuple[str, ...] = STATES, limit: int | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Score what the champion has not scored, and the rows and how many studies were looked at. With a `limit`: the
    last to arrive first, and not again what failed too often. Nothing when there is no champion for this origin."""
    if not (Settings().home / "models").exists():
        return [], 0  # no version was ever registered here: MLflow need not be asked
    from flows import tracking

    champion = tracking.find("champion")
    if champion is None:
        return [], 0
    made_of = tracking.package_facts(champion.number)["origin"]
    origin = None if made_of == "hospital" else made_of
    patience = PATIENCE if limit is not None else None
    waiting = ledger.unscored(str(champion.number), states, origin, limit, patience)
    if not waiting:
        return [], 0
    from tasks.keys import Keys

    keys = Keys.open()
    studies = {keys.uid(version.study_uid): version.row_key for version in waiting}
    try:
        rows = _task("score", _score_studies)(sorted(studies), champion.number)
        failed: dict[str, str] = {}
    except Exception as error:  # as when they are prepared: one study keeps no other waiting
        if _is_ours(error):
            raise
        log.warning("scoring %d studies failed (%s): each alone", len(studies), type(error).__name__)
        rows, failed = _score_each(sorted(studies), champion.number)
    for study, row_key in studies.items():
        if study in failed:
            times = ledger.not_scored(row_key, str(champion.number))
            log.warning("study %s was not scored by model %d: %s, %d times", row_key, champion.number,
                        failed[study], times)  # fmt: skip
        else:
            ledger.mark_scored(row_key, str(champion.number))
    return rows, len(studies)


def _score_studies(studies: list[str], number: int) -> list[dict[str, Any]]:
    from flows import tracking
    from flows.scoring import score_visits

    with giving() as given:
        return score_visits(studies, tracking.package_of(number), number, given.mapper)


def _score_each(studies: list[str], number: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows, and what each study that could not be scored died of."""
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for study in studies:
        try:
            rows += _score_studies([study], number)
        except Exception as error:
            if _is_ours(error):
                raise
            failed[study] = type(error).__name__
    return rows, failed


def score(studies: list[str], console: Console | None = None) -> list[dict[str, Any]]:
    """`osteoflow score`: these studies (pseudonyms), or all that the champion has not scored."""
    from flows import tracking

    champion = tracking.find("champion")
    if champion is None:
        raise WrongUse("there is no champion to score with; run osteoflow retrain first")
    with giving(console=console) as given:
        if not studies:
            return score_new(Ledger.open(), given)[0]
        hips = known.hips()
        unknown = [study for study in studies if not (hips["study"] == study).any()]
        if unknown:
            raise WrongUse(f"{len(unknown)} of these studies are not known here, the first is {unknown[0]}")
        return _score_studies(studies, champion.number)


# ---- annotations ----------------------------------------------------------------------------------------------------


def take_annotations(
    src: Path, origin: str = "hospital", site: str | None = None, partial: bool = False
) -> dict[str, Any]:
    """Import a folder of clinical tables, masks and exports: pseudonymized and shifted with the images' keys."""
    from flows import annotations

    return annotations.take(src, origin=origin, site=site, partial=partial)

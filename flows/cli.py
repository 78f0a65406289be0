"""The command `osteoflow`. It reads top to bottom in the order of DESIGN's table; the work is in the flows.

Exits 0 done, 1 failed, 2 wrong use, 3 refused (a gate, a leak check or a verification said no; the reason is printed).
Imports of the flows stand inside the commands: `osteoflow --help` must not wait for torch and Prefect.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from flows.environment import prepare
from tasks.domain.errors import OsteoflowError, WrongUse
from tasks.domain.hip import RESEARCH_ONLY

app = typer.Typer(
    help=f"Hip MRI in, an audited model of osteonecrosis progression out. {RESEARCH_ONLY}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.callback()
def workspace(
    directory: Annotated[Path | None, typer.Option("-C", help="Run in this workspace.", metavar="DIR")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    if directory is not None:
        if not directory.is_dir():
            raise WrongUse(f"-C: {directory} is not a folder")
        os.chdir(directory)
    handler = RichHandler(console=errors, show_path=False, show_time=False, markup=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s")
    logging.getLogger("osteoflow").setLevel(logging.INFO if verbose else logging.WARNING)


@app.command()
def demo(
    patients: Annotated[int, typer.Option(help="Phantom patients.", min=4, max=500)] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the cohort and of the training.")] = 7,
) -> None:
    """The whole life on phantoms: cohort, two arrivals, two model versions, results and the report's path."""
    from flows.demo import run

    run(patients=patients, seed=seed, console=console)


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    patients: Annotated[int, typer.Option(min=1)] = 20,
    seed: Annotated[int, typer.Option()] = 7,
    site: Annotated[str, typer.Option(help="Name of the site that the cohort pretends to be from.")] = "local",
) -> None:
    """Write a synthetic cohort: OUT/dicom/, OUT/annotations/ (tables and masks) and OUT/truth/."""
    from flows.progress import bar
    from tasks.phantom import write_cohort
    from tasks.store.mapping import local

    with local(preload=("tasks.phantom",)) as mapper, bar(console, "phantoms") as progress:
        write_cohort(out, patients=patients, seed=seed, site=site, mapper=mapper, progress=progress)
    console.print(f"{patients} patients in {out}: dicom/, annotations/, truth/. All of them invented.")


@app.command()
def anonymize(
    src: Annotated[Path, typer.Argument(help="A tree of files, DICOM or not.")],
    dst: Annotated[Path, typer.Argument(help="Where the de-identified tree goes.")],
    key_file: Annotated[Path | None, typer.Option(help="The project key: at least 32 random bytes.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write one row per input file as JSON.")] = None,
    name_sources: Annotated[
        bool, typer.Option("--name-sources", help="Name source paths in the report, which is then identified (0600).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """De-identify and verify a tree of files. Files that may not leave are quarantined or refused, with a reason."""
    _there(src, "hospital")
    prepare()
    from tasks.keys import Keys

    keys = Keys.open(key_file)
    from flows.progress import bar
    from tasks.anonymize import PRELOAD, Params, anonymize_tree
    from tasks.domain.params import load
    from tasks.domain.settings import Settings
    from tasks.store.files import write_json
    from tasks.store.mapping import local

    with local(preload=PRELOAD) as mapper, bar(console if not as_json else None, "files") as progress:
        rows = anonymize_tree(
            src, dst, keys, load("anonymize", Params), Settings().site,
            name_sources=name_sources, mapper=mapper, progress=progress,
        )  # fmt: skip
    if report:
        write_json(report, rows, mode=0o600 if name_sources else 0o644)
    counts: dict[str, int] = {}
    for row in rows:
        label = row["outcome"] if row["outcome"] == "released" else f"{row['outcome']}: {row['reason']}"
        counts[label] = counts.get(label, 0) + 1
    _report(counts, as_json, title="anonymize", columns=("outcome", "files"))


@app.command()
def ingest(
    src: Annotated[Path, typer.Argument(help="A folder, file or zip of DICOM.")],
    origin: Annotated[str, typer.Option(help="hospital or phantom; inherited by everything made of it.")] = "hospital",
    as_json: AsJson = False,
) -> None:
    """Take a folder of DICOM through the arrival loop, now."""
    _there(src, origin)
    prepare()
    from flows.arrive import ingest as run

    result = run(src, origin=origin, console=None if as_json else console)
    _report(result, as_json, title="ingest", columns=("what", "count"))


@app.command()
def annotate(
    src: Annotated[Path, typer.Argument(help="A folder or file: tables, masks, exports.")],
    origin: Annotated[str, typer.Option(help="hospital or phantom.")] = "hospital",
    site: Annotated[str | None, typer.Option(help="Site of rows that name none; default: OSTEOFLOW_SITE.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Take the good rows of a table with bad ones.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import labels, masks, treatments and outcomes. A table with a refused row is not taken, unless --partial."""
    _there(src, origin)
    prepare()
    from flows.arrive import take_annotations

    summary = take_annotations(src, origin=origin, site=site, partial=partial)
    _report(summary, as_json, title="annotate", columns=("what", "count"))
    if summary.get("refused"):
        raise typer.Exit(1)


@app.command()
def retrain(
    force: Annotated[bool, typer.Option("--force", help="Run also when nothing new has arrived.")] = False,
    as_json: AsJson = False,
) -> None:
    """Claim a batch and run the dataset loop to a gated registration."""
    prepare()
    from flows.retrain import run

    result = run(force=force, console=None if as_json else console)
    _report(result, as_json, title="retrain", columns=("what", "value"))


@app.command()
def score(
    studies: Annotated[list[str] | None, typer.Argument(help="Studies (pseudonyms); all unscored by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score studies with the champion."""
    prepare()
    from flows.arrive import score as run

    rows = run(studies or [])
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("hip-visit", "estimated risk", "interval", "abstained", title="scores")
    for row in rows:
        known = row["risk"] is not None
        interval = f"{row['risk_low']:.2f} to {row['risk_high']:.2f}" if known else ""
        table.add_row(row["hip_visit"], f"{row['risk']:.2f}" if known else "", interval, row["abstain"] or "")
    console.print(table)
    console.print(RESEARCH_ONLY)


@app.command()
def masks(
    out: Annotated[Path, typer.Argument(help="A folder for the files, one subfolder a study.")],
    studies: Annotated[list[str] | None, typer.Argument(help="Studies (pseudonyms); all by default.")] = None,
) -> None:
    """Write the predicted masks of the workspace as DICOM SEG, for a PACS."""
    prepare()
    from tasks.publish.dicom_seg import export

    written = export(Path.cwd(), out, studies or [])
    console.print(f"{len(written)} DICOM SEG files below {out}")
    console.print(RESEARCH_ONLY)


@app.command()
def serve(
    check: Annotated[bool, typer.Option("--check", help="Start everything, report that it answers, stop.")] = False,
) -> None:
    """Receivers, Prefect server and deployments, MLflow UI and audit site on loopback. Ctrl-C ends it cleanly."""
    prepare()
    from flows.serve import run

    run(console=console, check=check)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Ledger, runs, champion, drift and disk, in one screen."""
    prepare()
    from flows.facts import status as read
    from flows.facts import status_tables

    found = read()
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        console.print(*status_tables(found), sep="\n")


@app.command()
def trace(
    ref: Annotated[str, typer.Argument(help="model:NAME@alias, model:NAME/3, study:UID, subject:ID or file:PATH")],
    export: Annotated[
        tuple[str, Path] | None, typer.Option(help="crate | prov | openlineage, and where to write it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lineage of a model, study, subject or file, both ways."""
    prepare()
    from flows.facts import trace as run

    found, text = run(ref)
    if export:
        from tasks.trace import export as write

        write(export[0], found, export[1])
        console.print(f"written: {export[1]}")
    elif as_json:
        print(json.dumps(found, indent=1))
    else:
        console.print(text)


@app.command()
def verify(
    ref: Annotated[str, typer.Argument(help="A model; default: the champion.")] = "model:onfh-progression@champion",
    privacy: Annotated[
        bool, typer.Option("--privacy", help="Instead: every archive ever released, by the privacy rules of today.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --privacy: tell, change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Recompute every digest behind a model; exit 3 names what differs."""
    prepare()
    if privacy:
        return _privacy(dry_run, as_json)
    from flows.verify import verify as run

    found = run(ref)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        console.print(f"{found['checked']} digests recomputed, {len(found['differences'])} differ")
        for entry in found["differences"]:
            console.print(f"  {entry['kind']} {entry['what']}: expected {entry['expected']}, found {entry['found']}")
    if found["differences"]:
        raise typer.Exit(3)


def _privacy(dry_run: bool, as_json: bool) -> None:
    from flows.privacy import verify as run

    found = run(dry_run)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        console.print(f"{found['checked']} archives read, {len(found['leaks'])} must not be there")
        for leak in found["leaks"]:
            said = leak["outcome"] or "nothing done (--dry-run)"
            console.print(f"  {leak['subject']} {leak['study']}-v{leak['version']:.0f}: {', '.join(leak['wrong'])}")
            console.print(f"    copies: {len(leak['copies'])}, dataset runs: {len(leak['dataset_runs'])}; {said}")
        if found["left"]:
            console.print(f"  [bold]{len(found['left'])} could not be removed[/]")
    if found["leaks"]:
        raise typer.Exit(3)


@app.command()
def promote(
    number: Annotated[int, typer.Argument(help="The version that becomes champion.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    by: Annotated[str | None, typer.Option(help="Who; default: the OS user.")] = None,
) -> None:
    """Move the champion to a version; who, when and why are kept."""
    prepare()
    from flows.promote import promote as run

    console.print(run(number, reason or "promoted by hand", by))


@app.command()
def rollback(
    reason: Annotated[str, typer.Option()] = "", by: Annotated[str | None, typer.Option()] = None
) -> None:  # fmt: skip
    """Give the champion's place back to the previous version."""
    prepare()
    from flows.promote import rollback as run

    console.print(run(reason or "rolled back by hand", by))


@app.command()
def erase(
    subject: Annotated[str, typer.Argument(help="The pseudonym of the subject.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only the plan.")] = False,
    as_json: AsJson = False,
) -> None:
    """The plan, then the purge, the tainted models, the certificate."""
    prepare()
    from flows.erase import run

    result = run(subject, dry_run=dry_run)
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        console.print_json(data=result)


@app.command()
def reidentify(
    subject: Annotated[str, typer.Argument(help="The pseudonym.")],
    reason: Annotated[str, typer.Option(help="Why; written to the audit log.")],
    key_file: Annotated[Path | None, typer.Option(help="The project key, when not the default.")] = None,
) -> None:
    """With the key, in the identified zone: who a subject is. Written to the audit log."""
    prepare()
    import dataclasses
    import getpass

    from tasks.keys import Keys
    from tasks.keys import reidentify as run

    person = run(subject, reason=reason, who=getpass.getuser(), keys=Keys.open(key_file))
    print(json.dumps(dataclasses.asdict(person), indent=1, ensure_ascii=False, default=str))


@app.command(name="rotate-key")
def rotate_key(
    reason: Annotated[str, typer.Option(help="Why; written to the audit log.")] = "rotation",
    key_file: Annotated[Path | None, typer.Option(help="The project key, when not the default.")] = None,
) -> None:
    """Make a new project key in place of the old one and rewrap the secrets; pseudonyms stay as they are."""
    prepare()
    import getpass

    from tasks.keys import rotate

    rotate(getpass.getuser(), reason, key_file)
    console.print("rotated: secrets are wrapped under the new key, pseudonyms and folds are unchanged")


quarantine = typer.Typer(help="What was held back, and what becomes of it.", no_args_is_help=True)
app.add_typer(quarantine, name="quarantine")

Why = Annotated[str, typer.Option("--reason", "--why", help="Why; kept with the decision.")]


@quarantine.command(name="list")
def quarantine_list(as_json: AsJson = False) -> None:
    """Everything that is held, with its reason."""
    prepare()
    from tasks.ledger import Ledger
    from tasks.receive import show

    ledger = Ledger.open()
    held = [show(ledger, entry.key) for entry in ledger.quarantine_entries()]
    if as_json:
        print(json.dumps(held, indent=1))
        return
    table = Table("key", "what", "reason", "detail", "may be released")
    for entry in held:
        may = "yes" if entry["releasable"] else "no"
        table.add_row(entry["key"], entry["what"], entry["reason"], entry["detail"], may)
    console.print(table)


@quarantine.command(name="show")
def quarantine_show(key: Annotated[str, typer.Argument()]) -> None:
    """One entry."""
    prepare()
    from tasks.ledger import Ledger
    from tasks.receive import show

    console.print_json(data=show(Ledger.open(), key))


@quarantine.command(name="release")
def quarantine_release(key: Annotated[str, typer.Argument()], why: Why) -> None:
    """Put an entry back on its way; refused (exit 3) when it would be held again."""
    prepare()
    import getpass

    from tasks.ledger import Ledger
    from tasks.receive import release

    release(Ledger.open(), key, getpass.getuser(), why)
    console.print(f"{key}: released")


@quarantine.command(name="discard")
def quarantine_discard(key: Annotated[str, typer.Argument()], why: Why) -> None:
    """Give an entry up and remove its bytes; the decision stays in the ledger."""
    prepare()
    import getpass

    from tasks.ledger import Ledger
    from tasks.receive import discard

    console.print(f"{key}: {discard(Ledger.open(), key, getpass.getuser(), why)} files removed")


def _there(src: Path, origin: str) -> None:
    """What can be said before anything is imported."""
    if origin not in ("hospital", "phantom"):
        raise WrongUse(f"--origin is hospital or phantom, not '{origin}'")
    if not src.exists():
        raise WrongUse(f"{src} is not there")


def _report(found: dict[str, Any], as_json: bool, title: str, columns: tuple[str, str]) -> None:
    if as_json:
        print(json.dumps(found, indent=1, default=str))
        return
    table = Table(*columns, title=title)
    for key, value in found.items():
        table.add_row(str(key), json.dumps(value) if isinstance(value, (dict, list)) else str(value))
    console.print(table)


def main() -> None:
    """Entry point: the error tree's exit codes, its message on stderr, no traceback for what is raised on purpose."""
    try:
        app()
    except OsteoflowError as error:
        errors.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        errors.print(str(error), markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("interrupted; run the same command again to go on")
        sys.exit(130)


if __name__ == "__main__":
    main()

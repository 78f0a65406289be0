"""A Monday morning: many small studies at once through the real `osteoflow serve`. None lost, memory bounded.

One T1 series a study, real headers, tiny matrix; half by C-STORE from four senders, half by the watched folder. The
champion is there and looks at each (small networks). Deployments look every 20 s whether a dataset run is due.
`peak_mb`: the most memory of each child of serve, and of the processes below it. BENCH_STUDIES: how many (100; 1000 is
the one that counts).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bench import served

STUDIES = int(os.environ.get("BENCH_STUDIES", "100"))
SENDERS, QUIET_S, WATCH_S = 4, 5.0, 20


def run() -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_PLACE"), ignore_cleanup_errors=True) as place:
        hospital = served.workspace(Path(place), small())
        look_often(hospital.workspace / "infra" / "prefect.yaml")
        studies = make(Path(place) / "burst", STUDIES)
        files = sum(map(len, studies))
        served.champion(hospital)
        with served.served(hospital) as serve, served.Memory(serve) as memory:
            before, started = served.cpu_s(serve), time.time()
            folder = threading.Thread(target=drop, args=(hospital.inbox, studies[1::2]))
            folder.start()
            accepted = served.send(hospital, studies[::2], SENDERS)
            folder.join()
            sent = time.time() - started
            served.wait(lambda: at_rest(hospital), "all of them to be worked on", served.PATIENCE_S + 5 * STUDIES)
            rested = time.time() - started
            spent = {name: round(seconds - before[name], 1) for name, seconds in served.cpu_s(serve).items()}
        [(received, arrived, scored, last)] = hospital.ledger(
            "select sum(n_files), count(arrived_at), count(scored_at), max(max(arrived_at), max(scored_at)) "
            "from studies where current = 1"
        )
        runs = hospital.ledger("select count(*) from runs")[0][0]
        counts = hospital.counts()
    return {
        "studies": STUDIES,
        "files": files,
        "accepted_by_c_store": accepted,
        "lost": files - received,
        "states": {state: n for state, n in counts.items() if n},
        "worked_on": arrived,
        "scored": scored,
        "dataset_runs": runs,
        "sent_s": round(sent, 1),
        "last_done_s": round(last - started, 1),
        "at_rest_s": round(rested, 1),
        "seconds_a_study": round((last - started) / STUDIES, 3),
        "cpu_s": spent,
        "peak_mb": dict(sorted(memory.peaks.items())),
        "load": [round(x, 1) for x in os.getloadavg()],
    }


def small() -> dict[str, Any]:
    network = {"network": "mobilenet_v3_small"}
    return {
        "receive": {"quiet_seconds": QUIET_S, "poll_seconds": 0.5, "stable_seconds": 1.0},
        "split": {"folds": 2},
        "classify": {**network, "size_px": 32, "width": 32, "reduced": 16},
        "segment": {**network, "hip": {"size_px": 48, "width": 32}, "vessel": {"width": 8}},
    }


def look_often(schedules: Path) -> None:
    declared = yaml.safe_load(schedules.read_text(encoding="utf-8"))
    for deployment in declared["deployments"]:
        if deployment["name"] == "watch":
            deployment["schedules"] = [{"interval": WATCH_S}]
    schedules.write_text(yaml.safe_dump(declared), encoding="utf-8")


def make(folder: Path, studies: int) -> list[list[Path]]:
    """A study each of a patient of their own, copies of one phantom's T1 series but for names and UIDs."""
    from pydicom import dcmread

    from tasks.phantom import one_study

    made = one_study(folder / "template", matrix=4.0)
    templates = [dcmread(path) for path in sorted((folder / "template" / "dicom").rglob("*")) if path.is_file()]
    templates = [one for one in templates if one.SeriesInstanceUID == made["series"]["t1"]]
    found = []
    for number in range(studies):
        paths = []
        for index, ds in enumerate(templates):
            for word in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
                setattr(ds, word, f"1.2.826.0.1.3680043.10.511.{number + 1}.{len(word)}")
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SeriesInstanceUID}.{index + 1}"
            ds.PatientID, ds.PatientName = f"BURST-{number}", f"Burst{number}^Patient"
            paths.append(folder / str(number) / f"{index}.dcm")
            paths[-1].parent.mkdir(exist_ok=True)
            ds.save_as(paths[-1])
        found.append(paths)
    shutil.rmtree(folder / "template")
    return found


def drop(inbox: Path, studies: Sequence[Sequence[Path]]) -> None:
    """As another system exports: a folder a study, each file under its name once it is whole."""
    for paths in studies:
        folder = inbox / "export" / paths[0].parent.name
        folder.mkdir(parents=True)
        for path in paths:
            partial = folder / f"{path.name}.part"
            shutil.copyfile(path, partial)
            partial.rename(partial.with_suffix(""))


def at_rest(hospital: Any) -> bool:
    """Every study is worked on and scored, or in quarantine."""
    [(done,)] = hospital.ledger(
        "select count(*) from studies where current = 1 and "
        "(state = 'quarantined' or (state != 'receiving' and arrived_at is not null and scored_at is not null))"
    )
    return bool(done >= STUDIES)

"""From what a hospital wrote to pseudonyms: ids, UIDs and readers keyed, dates shifted, as in the images."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from typing import Any, Protocol

from tasks.annotate import drawn
from tasks.annotate.drawn import Drawn
from tasks.store import hips
from tasks.store.digests import combine, sha256_bytes

UNNAMED = "unnamed"
"""Whoever drew what names nobody."""

ROLES = {
    "consensus": "adjudicator", "adjudicator": "adjudicator", "adjudicated": "adjudicator", "not named": UNNAMED,
}  # fmt: skip
"""Reader names that are no people: kept; the adjudicator's word is final."""


class OfPatient(Protocol):
    """How a patient's ids, UIDs and dates become pseudonyms."""

    def subject(self, site: str, patient_id: str) -> str: ...
    def uid(self, uid: str) -> str: ...
    def shift_days(self, site: str, patient_id: str) -> int: ...


class Keys(OfPatient, Protocol):
    """What is needed of tasks.keys.Keys."""

    def reader(self, name: str) -> str: ...


PSEUDONYM = re.compile(r"OF[A-Z2-7]{16}")
"""A subject as the de-identified files name it: what was drawn on those has pseudonyms and shifted dates already."""


class Released:
    """Keys of what was read on de-identified files."""

    def subject(self, site: str, patient_id: str) -> str:
        return patient_id

    def uid(self, uid: str) -> str:
        return uid

    def shift_days(self, site: str, patient_id: str) -> int:
        return 0


def of_patient(patient_id: str | None, keys: Keys) -> OfPatient:
    return Released() if patient_id and PSEUDONYM.fullmatch(patient_id) else keys


def row_of(name: str, number: int, row: Any, keys: Keys, site: str) -> list[dict[str, Any]]:
    site = row.site or site
    own = of_patient(row.patient_id, keys)
    subject = own.subject(site, row.patient_id)
    shift = own.shift_days(site, row.patient_id)
    common = {"subject": subject, "row": float(number)}

    def shifted(day: date | None) -> str | None:
        return None if day is None else (day + timedelta(days=shift)).isoformat()

    if name == "labels":
        study = None if row.study_instance_uid is None else own.uid(row.study_instance_uid)
        common |= {"study": study, "date": shifted(row.visit_date), "side": row.side}
        reader = reader_of(row.reader, keys)
        return [common | {"reader": reader, "name": label, "value": v} for label, v in row.labels().items()]
    if name in ("treatments", "outcomes"):
        common |= {"side": row.side, "date": shifted(row.date)}
        common |= {"replaces": shifted(row.replaces)} if row.replaces else {}
        common |= {"status": row.status} if row.status == "withdrawn" else {}
        return [common | ({"treatment": row.treatment} if name == "treatments" else {"event": row.event})]
    if name == "consent":
        return [common | {"status": row.status, "date": shifted(row.date)}]
    other, same = row.same_site or site, of_patient(row.same_as, keys)
    shift -= same.shift_days(other, row.same_as)
    return [common | {"same_as": same.subject(other, row.same_as), "shift_days": float(shift)}]


def reader_of(name: str, keys: Keys) -> str:
    return ROLES.get(name.strip().lower()) or keys.reader(name)


def mask_of(mask: Drawn, keys: Keys, site: str) -> tuple[dict[str, Any], hips.HipFile]:
    own = of_patient(mask.patient_id, keys)

    def uid(value: str) -> str | None:
        return own.uid(value) if value else None

    file = drawn.to_file(mask)
    row = {
        "label": mask.label,
        "reader": reader_of(mask.reader, keys),
        "side": mask.side or None,
        "subject": own.subject(mask.site or site, mask.patient_id) if mask.patient_id else None,
        "study": uid(mask.study),
        "series": uid(mask.series),
        "frame": uid(mask.frame),
        "sop": uid(mask.sop),
        "kind": mask.kind,
        "index": mask.extra.get("index"),
        "thick": "yes" if mask.thick else "no",
        "voxels": float(file.meta["voxels"]),
        "row": None if mask.row is None else float(mask.row),
    }
    text = json.dumps([row, file.meta], sort_keys=True)
    row["document"] = None if mask.document is None else float(mask.document)  # not part of what the mask is
    row["file"] = f"masks/{combine(text, sha256_bytes(file.tensors['bits'].tobytes()))[:24]}.safetensors"
    return row, file

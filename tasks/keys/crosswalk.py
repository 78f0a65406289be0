"""The crosswalk: who a pseudonym is. One encrypted record a subject, in the identified zone, opened with the key alone.

`crosswalk/<key id>/<subject>.bin` is a nonce and AES-256-GCM over JSON, bound to its subject; the data key stands in
`key.json` beside it, wrapped by the project key, and by two of them for the moment of a rotation. Erasing a subject is
removing its file.
"""

from __future__ import annotations

import fcntl
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tasks.domain.errors import KeyRefused, WrongUse
from tasks.domain.settings import Settings
from tasks.keys import keyfile
from tasks.keys.audit import Audit
from tasks.keys.derive import Keys
from tasks.store.files import read_json, write_bytes, write_json


@dataclass(frozen=True)
class Person:
    """What stands behind one subject. `studies`: de-identified StudyInstanceUID -> the original."""

    subject: str
    site: str
    patient_id: str
    names: tuple[str, ...]
    studies: Mapping[str, str]


class Crosswalk:
    def __init__(self, keys: Keys, folder: Path | None = None) -> None:
        self.folder = folder or Settings().ensure().identified / "crosswalk" / keys.id
        self.folder.parent.mkdir(mode=0o700, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with self._lock("key"):
            self._data_key = AESGCM(_data_key(self.folder, keys))

    def record(
        self, site: str, patient_id: str, subject: str, names: Iterable[str] = (), studies: Mapping[str, str] = {}
    ) -> None:
        """Add what is now known of `subject`; what was known stays. Safe from several processes."""
        with self._lock(subject):
            known = self.find(subject)
            seen = tuple(known.names) if known else ()
            all_names = [*seen, *(name for name in dict.fromkeys(names) if name and name not in seen)]
            all_studies = {**(known.studies if known else {}), **studies}
            if known and len(all_names) == len(seen) and all_studies == dict(known.studies):
                return
            value = {"site": site, "patient_id": patient_id, "names": all_names, "studies": all_studies}
            nonce = secrets.token_bytes(12)
            text = json.dumps(value, ensure_ascii=False, sort_keys=True).encode()
            write_bytes(self._file(subject), nonce + self._data_key.encrypt(nonce, text, subject.encode()), 0o600)

    def find(self, subject: str) -> Person | None:
        """Who `subject` is, or None when unknown here. For a person's eyes use `reidentify`, which is logged."""
        path = self._file(subject)
        if not path.exists():
            return None
        data = path.read_bytes()
        try:
            value = json.loads(self._data_key.decrypt(data[:12], data[12:], subject.encode()))
        except InvalidTag:
            raise KeyRefused(f"the crosswalk's record of {subject} does not open with this key") from None
        return Person(subject, value["site"], value["patient_id"], tuple(value["names"]), value["studies"])

    def subjects(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("OF*.bin"))

    def forget(self, subject: str) -> bool:
        """Erase the record of `subject`; says whether there was one."""
        with self._lock(subject):
            path = self._file(subject)
            if not path.exists():
                return False
            path.unlink()
            return True

    def _file(self, subject: str) -> Path:
        if not subject.isalnum():
            raise WrongUse("a subject is a pseudonym as in the studies table: OF and 16 letters or digits")
        return self.folder / f"{subject}.bin"

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        # 64 lock files serve all subjects: a lock of its own for each would outlive the record that it guards.
        slot = name if name == "key" else f"{sum(name.encode()) % 64:02d}"
        with open(self.folder / f".{slot}.lock", "ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def reidentify(subject: str, reason: str, who: str, keys: Keys | None = None) -> Person:
    """Who `subject` is, after the look has been written to the audit log with its reason."""
    if not reason.strip():
        raise WrongUse("re-identification needs a reason: --reason TEXT")
    crosswalk = Crosswalk(keys or Keys.open())
    person = crosswalk.find(subject)
    Audit().write("reidentify", who, reason, subject=subject, found="yes" if person else "no")
    if person is None:
        raise WrongUse(f"{subject} is not in the crosswalk of this machine")
    return person


def rotate(who: str, reason: str = "rotation", key_file: Path | None = None) -> str:
    """Replace the project key by a new one. Pseudonyms stay; the old file opens nothing written from now on.

    The data key is wrapped by both keys before the key file is replaced, so a crash at any moment leaves one that
    opens. Returns the key's id, which does not change.
    """
    old = Keys.open(key_file)
    new = Keys(keyfile.successor(old.secret))
    crosswalk = Crosswalk(old)
    with crosswalk._lock("key"):
        data_key = _data_key(crosswalk.folder, old)
        _save_wraps(crosswalk.folder, data_key, [old, new])
        keyfile.save(new.secret)
        _save_wraps(crosswalk.folder, data_key, [new])
    Audit().write("rotate_key", who, reason, key=new.id)
    return new.id


def _data_key(folder: Path, keys: Keys) -> bytes:
    """The crosswalk's data key, made on first use."""
    path = folder / "key.json"
    if not path.exists():
        data_key = AESGCM.generate_key(256)
        _save_wraps(folder, data_key, [keys])
        return data_key
    wrapping = AESGCM(keyfile.derive(keys.secret.key, "encryption"))
    for wrap in read_json(path)["wraps"]:
        data = bytes.fromhex(wrap)
        try:
            return wrapping.decrypt(data[:12], data[12:], b"crosswalk")
        except InvalidTag:
            continue
    raise KeyRefused(f"the crosswalk in {folder} does not open with the key {keys.secret.path}")


def _save_wraps(folder: Path, data_key: bytes, all_keys: list[Keys]) -> None:
    wraps = []
    for keys in all_keys:
        nonce = secrets.token_bytes(12)
        wrapping = AESGCM(keyfile.derive(keys.secret.key, "encryption"))
        wraps.append((nonce + wrapping.encrypt(nonce, data_key, b"crosswalk")).hex())
    write_json(folder / "key.json", {"wraps": wraps}, 0o600)

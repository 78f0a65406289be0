"""`Keys`: pseudonyms, UIDs, date shifts and labels by HMAC-SHA-256, each under a sub-key of its own."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from tasks.keys import keyfile

SHIFT_DAYS = (90, 3650)
"""Dates move into the past by this many days, least and most."""


class Keys:
    """Everything keyed. Equal key file, equal answers; it never leaves the process (pickling is refused)."""

    def __init__(self, secret: keyfile.Secret) -> None:
        self.secret = secret
        sub = {
            label: keyfile.derive(secret.master, label)
            for label in ("pseudonyms", "uids", "dates", "labels", "readers", "commitments", "id")
        }
        self._sub = sub
        self.id = sub["id"][:8].hex()
        """Names the master secret without telling anything about it; equal before and after a rotation."""
        # A hashed state copied is half the price of a new HMAC, and a file holds dozens of UIDs.
        self._uids = hmac.new(sub["uids"], digestmod=hashlib.sha256)
        self.uid = lru_cache(maxsize=65536)(self._uid)

    @classmethod
    def open(cls, key_file: Path | None = None) -> Keys:
        """The key named, else OSTEOFLOW_KEY_FILE, else the default. Raises KeyRefused (exit 3) for one that is
        missing though named, weak, damaged, or readable by others."""
        return cls(keyfile.load(key_file))

    def subject(self, site: str, patient_id: str) -> str:
        """The de-identified PatientID: 'OF' and 16 base32 characters (80 bits)."""
        return "OF" + _base32(self._keyed("pseudonyms", _plain(site), _plain(patient_id)), 16)

    def shift_days(self, site: str, patient_id: str) -> int:
        """Days to add to every date of this patient: -3650 to -90."""
        low, high = SHIFT_DAYS
        digest = self._keyed("dates", _plain(site), _plain(patient_id))
        return -(low + int.from_bytes(digest[:8], "big") % (high - low + 1))

    def shift_date(self, site: str, patient_id: str, day: datetime.date) -> datetime.date:
        """`day` as it stands outside the identified zone."""
        return day + datetime.timedelta(days=self.shift_days(site, patient_id))

    def _uid(self, uid: str) -> str:
        """The de-identified UID: 2.25 and 128 keyed bits as a decimal number (PS3.5 B.2 form)."""
        state = self._uids.copy()
        state.update(uid.strip(" \0").encode("utf-8", "surrogatepass"))
        return f"2.25.{int.from_bytes(state.digest()[:16], 'big')}"

    def reader(self, name: str) -> str:
        """A reader's pseudonym: 'RD' and 8 base32 characters; spaces around and case do not count."""
        return "RD" + _base32(self._keyed("readers", _plain(name).casefold()), 8)

    def label(self, kind: str, value: str) -> str:
        """A consistent pseudonym of 16 base32 characters for anything else, e.g. ('accession', '4711')."""
        return _base32(self._keyed("labels", kind, _plain(value)), 16)

    def commitment(self, salt: bytes, *parts: str) -> str:
        """A salted commitment to `parts`, 64 hex digits: opened with the salt and the key, and by nothing less."""
        return self._keyed("commitments", salt.hex(), *parts).hex()

    def digest(self, data: bytes) -> str:
        """A keyed digest of bytes, so that a known original cannot be looked up by its plain SHA-256."""
        return self.seal(hashlib.sha256(data).digest())

    def seal(self, sha256: bytes) -> str:
        """The keyed digest of bytes whose SHA-256 is known."""
        return hmac.new(self._sub["commitments"], b"file\0" + sha256, hashlib.sha256).hexdigest()

    def _keyed(self, label: str, *parts: str) -> bytes:
        state = hmac.new(self._sub[label], digestmod=hashlib.sha256)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            state.update(len(data).to_bytes(4, "big") + data)
        return state.digest()

    def __repr__(self) -> str:
        return f"Keys({self.id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is opened where it is used, never pickled")


def _plain(value: str) -> str:
    return unicodedata.normalize("NFC", value).strip(" \0")


def _base32(digest: bytes, length: int) -> str:
    return base64.b32encode(digest).decode()[:length]

"""The project key: what is accepted, what is refused, what follows from it, what survives a rotation."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import os
import pickle
import secrets
from pathlib import Path

import pytest

from tasks.domain.errors import KeyRefused, WrongUse
from tasks.keys import SHIFT_DAYS, Audit, Crosswalk, Keys, reidentify, rotate
from tasks.keys.keyfile import load, save, successor


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTEOFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OSTEOFLOW_KEY_FILE", raising=False)
    return tmp_path / "home"


def key_file(tmp_path: Path, data: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / f"{secrets.token_hex(4)}.key"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_the_default_key_is_made_once_with_tight_modes(home: Path) -> None:
    first = Keys.open()
    path = home / "identified" / "keys" / "project.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (home / "identified").stat().st_mode & 0o777 == 0o700
    assert Keys.open().subject("a", "1") == first.subject("a", "1")


def test_raw_hex_and_base64_of_the_same_bytes_are_the_same_key(tmp_path: Path) -> None:
    raw = bytes(range(100, 132))[::-1]
    raw = hashlib.sha256(raw).digest()
    forms = [raw, raw.hex().encode(), raw.hex().upper().encode() + b"\n", base64.b64encode(raw) + b"\n"]
    subjects = {Keys.open(key_file(tmp_path, form)).subject("site", "MRN1") for form in forms}
    assert len(subjects) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        hashlib.sha256(b"31").digest()[:31],
        hashlib.md5(b"16").hexdigest().encode(),
        b"\0" * 32,
        b"\xaa\x55" * 32,
        hashlib.md5(b"twice").digest() * 2,
        bytes(range(32)),
        b"a" * 64,
        b"correct horse battery staple, and then some more words",
        b"correcthorsebatterystaplecorrecthorsebatterystaple",
        b'{"osteoflow_key": 2}',
    ],
    ids=lambda data: str(len(data)) + "-" + hashlib.sha256(data).hexdigest()[:4],
)
def test_a_weak_key_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(KeyRefused) as caught:
        Keys.open(key_file(tmp_path, data))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyRefused, match="chmod 600"):
        Keys.open(key_file(tmp_path, secrets.token_bytes(32), mode))


def test_a_named_key_that_is_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyRefused):
        Keys.open(tmp_path / "nowhere.key")
    monkeypatch.setenv("OSTEOFLOW_KEY_FILE", str(tmp_path / "nowhere.key"))
    with pytest.raises(KeyRefused):
        Keys.open()


def test_a_lost_default_key_is_not_silently_replaced(home: Path) -> None:
    Crosswalk(Keys.open())
    (home / "identified" / "keys" / "project.key").unlink()
    with pytest.raises(KeyRefused, match="earlier key"):
        Keys.open()


def test_random_keys_are_not_refused(tmp_path: Path) -> None:
    for _ in range(50):
        Keys.open(key_file(tmp_path, secrets.token_bytes(32)))
        Keys.open(key_file(tmp_path, base64.b64encode(secrets.token_bytes(32))))


def test_a_raw_key_may_begin_with_a_brace_but_a_damaged_rotated_one_is_refused(tmp_path: Path) -> None:
    raw = b"{" + bytes(i * i * 7 % 251 for i in range(1, 32))
    assert Keys.open(key_file(tmp_path, raw))
    path = key_file(tmp_path, secrets.token_bytes(32))
    save(successor(load(path)))
    whole = path.read_bytes()
    for at in (len(whole) // 2, len(whole) - 4):
        with pytest.raises(KeyRefused, match="damaged"):
            Keys.open(key_file(tmp_path, whole[:at] + b"\xff" + whole[at + 1 :]))


def test_what_is_derived_has_its_form() -> None:
    keys = Keys.open()
    subject = keys.subject("local", "4711")
    assert len(subject) == 18 and subject.startswith("OF") and set(subject) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    assert keys.subject("local", " 4711\0") == subject
    assert keys.subject("other", "4711") != subject
    uid = keys.uid("1.2.3")
    assert uid == keys.uid("1.2.3\0") and uid.startswith("2.25.") and int(uid[5:]) < 1 << 128 and len(uid) <= 64
    assert len({keys.uid(f"1.2.{i}") for i in range(1000)}) == 1000
    assert keys.reader("Dr. Müller ") == keys.reader("dr. müller")
    assert keys.label("accession", "1") != keys.label("study", "1")
    assert keys.commitment(b"salt", "a", "bc") != keys.commitment(b"salt", "ab", "c")


def test_shifts_are_never_zero_and_keep_intervals() -> None:
    keys = Keys.open()
    shifts = [keys.shift_days("s", str(i)) for i in range(2000)]
    assert all(-SHIFT_DAYS[1] <= shift <= -SHIFT_DAYS[0] for shift in shifts) and len(set(shifts)) > 1000
    first, second = datetime.date(2020, 1, 31), datetime.date(2020, 7, 29)
    moved = [keys.shift_date("s", "1", day) for day in (first, second)]
    assert moved[1] - moved[0] == second - first


def test_who_holds_every_mrn_but_not_the_key_links_nothing(tmp_path: Path) -> None:
    """Every unkeyed construction that tools were seen to use, and keys an attacker would guess, give no match."""
    keys = Keys.open()
    mrns = [f"{i:07d}" for i in range(300)]
    released = {keys.subject("local", mrn) for mrn in mrns} | {keys.uid(mrn) for mrn in mrns}
    guesses = set()
    for mrn in mrns:
        for text in (mrn, f"local{mrn}", f"local|{mrn}", f"local\0{mrn}"):
            for name in ("md5", "sha1", "sha256", "sha512"):
                digest = hashlib.new(name, text.encode()).digest()
                guesses |= {"OF" + base64.b32encode(digest).decode()[:16]}
                guesses |= {f"2.25.{int.from_bytes(digest[:16], 'big')}"}
            for guess in (b"", b"osteoflow", b"\0" * 32, keys.id.encode(), bytes.fromhex(keys.id)):
                digest = hmac.new(guess, text.encode(), hashlib.sha256).digest()
                guesses |= {"OF" + base64.b32encode(digest).decode()[:16]}
    other = Keys.open(key_file(tmp_path, secrets.token_bytes(32)))
    guesses |= {other.subject("local", mrn) for mrn in mrns}
    assert not guesses & released
    same_shift = sum(keys.shift_days("local", mrn) == other.shift_days("local", mrn) for mrn in mrns)
    assert same_shift <= 5


def test_a_key_never_travels() -> None:
    keys = Keys.open()
    with pytest.raises(TypeError):
        pickle.dumps(keys)
    assert keys.secret.key.hex() not in repr(keys) + repr(keys.secret) + repr(vars(keys.secret).get("nothing"))


def test_rotation_keeps_pseudonyms_and_locks_the_old_key_out(home: Path, tmp_path: Path) -> None:
    path = home / "identified" / "keys" / "project.key"
    before = Keys.open()
    Crosswalk(before).record("local", "4711", before.subject("local", "4711"), ["Doe^Jane"], {"2.25.1": "1.2.3"})
    old_file = path.read_bytes()
    assert rotate("tester") == before.id
    after = Keys.open()
    assert path.read_bytes() != old_file and path.stat().st_mode & 0o777 == 0o600
    assert after.secret.key != before.secret.key
    for ask in (
        lambda k: k.subject("local", "4711"),
        lambda k: k.uid("1.2"),
        lambda k: k.shift_days("local", "4711"),
        lambda k: k.id,
    ):
        assert ask(after) == ask(before)
    person = Crosswalk(after).find(after.subject("local", "4711"))
    assert person is not None and person.patient_id == "4711" and person.studies == {"2.25.1": "1.2.3"}
    with pytest.raises(KeyRefused):
        Crosswalk(before)
    rotate("tester")
    moved = key_file(tmp_path, path.read_bytes())
    assert Keys.open(moved).subject("local", "4711") == before.subject("local", "4711")
    assert Audit().broken() is None


def test_the_crosswalk_is_ciphertext_and_bound_to_its_subject(home: Path) -> None:
    keys = Keys.open()
    crosswalk = Crosswalk(keys)
    one, two = keys.subject("local", "1"), keys.subject("local", "2")
    crosswalk.record("local", "1", one, ["Doe^Jane"], {"2.25.1": "1.2.840.1"})
    crosswalk.record("local", "1", one, ["Doe^J", "Doe^Jane"], {"2.25.2": "1.2.840.2"})
    crosswalk.record("local", "2", two, ["Roe^Richard"])
    person = crosswalk.find(one)
    assert person is not None and person.names == ("Doe^Jane", "Doe^J") and len(person.studies) == 2
    assert crosswalk.subjects() == sorted([one, two])
    stored = b"".join(p.read_bytes() for p in crosswalk.folder.iterdir())
    assert b"Doe" not in stored and b"1.2.840.1" not in stored
    (crosswalk.folder / f"{one}.bin").write_bytes((crosswalk.folder / f"{two}.bin").read_bytes())
    with pytest.raises(KeyRefused):
        crosswalk.find(one)
    assert crosswalk.forget(two) and not crosswalk.forget(two) and crosswalk.find(two) is None
    with pytest.raises(WrongUse):
        crosswalk.find("../../etc/passwd")


def test_looking_behind_a_pseudonym_is_logged_with_its_reason(home: Path) -> None:
    keys = Keys.open()
    subject = keys.subject("local", "4711")
    Crosswalk(keys).record("local", "4711", subject, ["Doe^Jane"])
    with pytest.raises(WrongUse):
        reidentify(subject, " ", "tester")
    assert reidentify(subject, "incidental finding", "tester").patient_id == "4711"
    with pytest.raises(WrongUse):
        reidentify("OFAAAAAAAAAAAAAAAA", "typo", "tester")
    lines = [json.loads(line) for line in (home / "identified" / "audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line["found"]) for line in lines] == [("reidentify", "yes"), ("reidentify", "no")]
    assert Audit().broken() is None
    log = home / "identified" / "audit.jsonl"
    log.write_text(log.read_text().replace("incidental finding", "nothing"))
    assert Audit().broken() == 2
    assert os.stat(log).st_mode & 0o777 == 0o600

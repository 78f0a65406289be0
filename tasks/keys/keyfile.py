"""The key file: read, judged, made on first use, rotated.

A fresh file is at least 32 random bytes: raw, hex or base64. A rotated one is JSON:
{"osteoflow_key": 2, "key": hex, "master": hex of nonce and wrapped master}.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tasks.domain.errors import KeyRefused
from tasks.domain.settings import Settings
from tasks.store.files import write_bytes

SHORTEST = 32
_HEX = re.compile(rb"[0-9A-Fa-f]+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")


@dataclass(frozen=True, repr=False)
class Secret:
    """`key`: what the file holds now, it encrypts. `master`: what pseudonyms come from, it outlives rotations."""

    key: bytes
    master: bytes
    path: Path


def derive(secret: bytes, label: str) -> bytes:
    """32 bytes for one purpose; nothing about another purpose follows from them."""
    return HKDF(algorithm=SHA256(), length=32, salt=b"osteoflow", info=label.encode()).derive(secret)


def default_path() -> Path:
    return Settings().identified / "keys" / "project.key"


def load(named: Path | None) -> Secret:
    """The secret of `named`, else of OSTEOFLOW_KEY_FILE, else of the default file, which is made on first use."""
    named = named or Settings().key_file
    if named is None:
        path = default_path()
        if not path.exists():
            _make(path)
    else:
        path = Path(named)
    return _read(path)


def _make(path: Path) -> None:
    """A new key at `path`; of two processes that try at once, one wins and both read its key."""
    settings = Settings().ensure()
    if any((settings.identified / "crosswalk").glob("*/key.json")):
        raise KeyRefused(
            f"{path} is missing, though a crosswalk made with an earlier key is there: bring the key file back "
            "(a new key would give every patient a second pseudonym), or move the crosswalk away"
        )
    path.parent.mkdir(mode=0o700, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, secrets.token_hex(SHORTEST).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def _read(path: Path) -> Secret:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise KeyRefused(f"the key {path} is not a file")
        if mode & 0o077:
            raise KeyRefused(f"the key {path} can be read by others (mode {mode & 0o777:04o}): chmod 600 it")
        data = path.read_bytes()
    except FileNotFoundError:
        raise KeyRefused(f"the key {path} is not there: bring it back or name another with --key-file") from None
    except PermissionError:
        raise KeyRefused(f"the key {path} cannot be read by this user") from None
    # A raw key may begin with a brace too (1 in 256 does): only the field's name, or text throughout, marks a
    # rotated file, so that a damaged one is refused and not taken for a raw key.
    if data.lstrip().startswith(b"{") and (b'"osteoflow_key"' in data or b'"master"' in data or data.isascii()):
        return _rotated(path, data)
    key = _decode(path, data)
    return Secret(key, derive(key, "master"), path)


def _decode(path: Path, data: bytes) -> bytes:
    """Raw, hex or base64 to bytes, and a judgement: what a person typed is no key."""
    text = data.strip()
    if _HEX.fullmatch(text):
        key = bytes.fromhex(text.decode()) if len(text) % 2 == 0 else b""
    elif _BASE64.fullmatch(text) and len(text) >= 43:
        try:
            key = base64.b64decode(text.translate(bytes.maketrans(b"-_", b"+/")) + b"=" * (-len(text) % 4))
        except binascii.Error:
            key = b""
        if text.lower() == text or text.upper() == text:
            raise KeyRefused(f"the key {path} is weak: words, not random bytes")
    elif text.isascii() and text.decode().isprintable():
        raise KeyRefused(f"the key {path} is weak: text that is neither hex nor base64 of {SHORTEST} random bytes")
    else:
        key = data
    _judge(path, key)
    return key


def _judge(path: Path, key: bytes) -> None:
    if len(key) < SHORTEST:
        raise KeyRefused(f"the key {path} is weak: {len(key)} bytes, at least {SHORTEST} random bytes are needed")
    steps = {(b - a) % 256 for a, b in itertools.pairwise(key)}
    # 32 random bytes have fewer than 16 distinct values, or distinct steps, with a probability below 1e-11.
    if len(set(key)) < 16 or len(steps) < 16 or key[:16] == key[16:32]:
        raise KeyRefused(f"the key {path} is weak: it repeats itself; make one with `openssl rand -hex 32`")


def _rotated(path: Path, data: bytes) -> Secret:
    try:
        value = json.loads(data)
        key, wrapped = bytes.fromhex(value["key"]), bytes.fromhex(value["master"])
        version = value["osteoflow_key"]
    except (ValueError, KeyError, TypeError):
        raise KeyRefused(f"the key {path} is damaged") from None
    if version != 2:
        raise KeyRefused(f"the key {path} is of a later version of osteoflow")
    _judge(path, key)
    try:
        master = AESGCM(derive(key, "wrap")).decrypt(wrapped[:12], wrapped[12:], b"master")
    except InvalidTag:
        raise KeyRefused(f"the key {path} is damaged: its master secret does not unwrap") from None
    return Secret(key, master, path)


def successor(secret: Secret) -> Secret:
    """A new key for the same master."""
    return Secret(secrets.token_bytes(SHORTEST), secret.master, secret.path)


def save(secret: Secret) -> None:
    """Replace the key file by the rotated form of `secret`, 0600, whole or not at all."""
    nonce = secrets.token_bytes(12)
    wrapped = nonce + AESGCM(derive(secret.key, "wrap")).encrypt(nonce, secret.master, b"master")
    value = {"osteoflow_key": 2, "key": secret.key.hex(), "master": wrapped.hex()}
    write_bytes(secret.path, json.dumps(value).encode() + b"\n", 0o600)

"""Recomputed digests."""

import hashlib

from tasks.store.digests import sha256_file
from tasks.trace import verify_digests


def test_one_changed_byte_is_named(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths[:2]:
        path.write_bytes(b"hip")
    digest = sha256_file(paths[0])
    entries = [{"kind": "package", "what": path.name, "digest": digest, "path": path} for path in paths]
    paths[1].write_bytes(b"hiq")
    found = verify_digests(entries)
    assert found["checked"] == 3
    assert [(row["what"], row["found"]) for row in found["differences"]] == [("b", sha256_file(paths[1])), ("c", None)]


def test_each_kind_has_its_hasher(tmp_path):
    path = tmp_path / "data.parquet"
    path.write_bytes(b"rows")
    md5 = hashlib.md5(b"rows").hexdigest()
    entry = {"kind": "data", "what": "data.parquet", "digest": md5, "path": path}
    hashers = {"data": lambda p: hashlib.md5(p.read_bytes()).hexdigest()}
    assert verify_digests([entry], hashers) == {"checked": 1, "differences": []}
    assert len(verify_digests([entry])["differences"]) == 1

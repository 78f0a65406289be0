"""A directory under DVC at the cost of what is new in it.

DVC keeps a directory as one object, a sorted list of (md5, path). To make it, DVC walks the tree through several layers
and looks every file up in a database, several times a stage: seconds for 10,000 files of which ten are new. Here the
same object is brought up to date from what changed: only changed files are hashed, only what the cache lacks is copied.
dvc.lock, the cache, `dvc status`, `pull`, `push` and `repro` cannot tell the difference (tests compare the bytes).

What is trusted: a file whose inode, size and time (ns) are those of last time has the same content (DVC trusts that
too); within FULL_EVERY_S of a look at every file, a folder that did not change (its ctime, since an import sets its
mtime back) holds the same files, since rooms write by renaming; a cache folder whose time did not change holds the
same objects. Whatever is unusual (links as cache type, a cache that is not local, line-ending hashes, a link inside
the tree) is left to DVC.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvc.output import Output
from dvc.stage import Stage
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta

FULL_EVERY_S = 30.0
"""Every file is looked at once a run: the stages of a run follow each other within this time, runs do not."""
RACY_NS = 100_000_000
"""A folder that changed this shortly before it was read may change again without another time: it is read again."""
NEVER = float("-inf")
PROTECTED = 0o444

Known = tuple[int, int, int, str]
"""inode, time (ns), size, md5"""


class _Unusual(Exception):
    """Something that only DVC knows how to treat."""


@dataclass
class _Folder:
    time_ns: int
    files: dict[str, Known]
    folders: list[str]


@dataclass
class Listing:
    """The files of one directory as last seen, and DVC's object of them."""

    top: Path
    rules: str
    """Digest of .dvcignore: other rules, other files."""
    folders: dict[str, _Folder] = field(default_factory=dict)
    names: list[str] = field(default_factory=list, repr=False)
    parts: dict[str, str] = field(default_factory=dict, repr=False)
    """Path → its entry in the object."""
    wanted: dict[str, dict[str, int]] = field(default_factory=dict, repr=False)
    """First two letters of a digest → the others → how many files have it: what the cache has to hold."""
    size: int = 0
    object: bytes = field(default=b"", repr=False)
    digest: str = ""
    looked: float = NEVER

    def look(self, ignore: Any, store: Path) -> None:
        """Bring the listing up to date with the disk."""
        full = time.monotonic() - self.looked > FULL_EVERY_S
        changes: list[tuple[str, Known | None]] = []
        waiting, met = [""], set()
        while waiting:
            folder = waiting.pop()
            met.add(folder)
            known = self.folders.get(folder)
            if full or known is None or os.stat(self.top / folder).st_ctime_ns != known.time_ns:
                known = self.folders[folder] = self._read(folder, known, ignore, changes)
            waiting += known.folders
        for folder in self.folders.keys() - met:
            changes += [(folder + name, None) for name in self.folders.pop(folder).files]
        if full:
            self.looked = time.monotonic()
        if changes or not self.digest:
            self._apply(changes)
            _append(store, self, changes)

    def _read(self, folder: str, old: _Folder | None, ignore: Any, changes: list[tuple[str, Known | None]]) -> _Folder:
        place = self.top / folder
        before, now = os.stat(place).st_ctime_ns, time.time_ns()
        files: dict[str, Known] = {}
        folders: list[str] = []
        known = old.files if old is not None else {}
        with os.scandir(place) as entries:
            for entry in entries:  # this is what grows with all that is there: as little as possible for each file
                seen, name = entry.stat(follow_symlinks=False), entry.name
                was = known.get(name)
                # An inode is of one kind as long as it lives. seen[1] and seen[6]: st_ino and st_size, faster.
                if was is not None and was[1] == seen.st_mtime_ns and was[0] == seen[1] and was[2] == seen[6]:
                    files[name] = was
                elif stat.S_ISREG(seen.st_mode):
                    if was is not None or not ignore.is_ignored_file(entry.path):
                        files[name] = (seen.st_ino, seen.st_mtime_ns, seen.st_size, _md5(entry.path))
                        changes.append((folder + name, files[name]))
                elif stat.S_ISDIR(seen.st_mode):
                    if not ignore.is_ignored_dir(entry.path):
                        folders.append(f"{folder}{name}/")
                else:
                    raise _Unusual
        changes += [(folder + name, None) for name in known if name not in files]
        return _Folder(before if now - before > RACY_NS else 0, files, folders)

    def _apply(self, changes: list[tuple[str, Known | None]]) -> None:
        """DVC's object is json.dumps(sort_keys=True) of [{md5, relpath}] in the order of the paths."""
        for name, known in changes:
            if (before := self.parts.get(name)) is not None:
                self._want(before[9:41], -1)
            if known is None:
                del self.parts[name]
                del self.names[bisect.bisect_left(self.names, name)]
                continue
            self._want(known[3], 1)
            if before is None:
                if len(changes) < 1000:
                    bisect.insort(self.names, name)
                else:
                    self.names.append(name)
            self.parts[name] = f'{{"md5": "{known[3]}", "relpath": {json.dumps(name)}}}'
        if len(changes) >= 1000:
            self.names.sort()
        self.size = sum(known[2] for folder in self.folders.values() for known in folder.files.values())
        self.object = f"[{', '.join(map(self.parts.__getitem__, self.names))}]".encode()
        self.digest = hashlib.md5(self.object, usedforsecurity=False).hexdigest() + ".dir"

    def _want(self, md5: str, more: int) -> None:
        rests = self.wanted.setdefault(md5[:2], {})
        rests[md5[2:]] = rests.get(md5[2:], 0) + more
        if not rests[md5[2:]]:
            del rests[md5[2:]]

    def having(self, digests: set[str]) -> dict[str, str]:
        """Of these md5 those that a file has → a path of it below the directory."""
        return {
            known[3]: folder + name
            for folder, one in self.folders.items()
            for name, known in one.files.items()
            if known[3] in digests
        }


_listings: dict[Path, Listing] = {}
"""Of this process: a warm worker reads the stored ones once."""
_whole: dict[tuple[Path, str], tuple[int, frozenset[str]]] = {}
"""Folder of the cache → its time when it was read, and the protected objects in it."""


def hasten(stage: Stage) -> Stage:
    """Let the directories among the dependencies and outs of `stage` be hashed and cached from what is new."""
    for out in [*stage.deps, *stage.outs]:
        before = getattr(out.get_hash, "__self__", None) if hasattr(out, "get_hash") else None
        if isinstance(before, _Directory):
            before.seen = None
        elif _usual(out):
            _Directory(out)
    return stage


def forget() -> None:
    """Look at every file again, as the next run would."""
    for listing in _listings.values():
        listing.looked = NEVER


def _usual(out: Any) -> bool:
    if type(out).__module__ not in ("dvc.output", "dvc.dependency.base") or out.fs.protocol != "local":
        return False
    cache = out.repo.cache.local
    copies = cache is not None and cache.fs.protocol == "local" and cache.cache_types[:1] in (["reflink"], ["copy"])
    return bool(copies and out.hash_name == "md5" and out.is_in_repo)


class _Directory:
    """What DVC asks of an out, answered from its listing; DVC's own answer when it is no directory or unusual."""

    def __init__(self, out: Output) -> None:
        self.out: Any = out
        self.path = Path(out.fs_path)
        self.seen: Listing | None = None
        """As `get_hash` or `save` found it, for the questions that follow at once."""
        self.dvc = {name: getattr(out, name) for name in ("get_hash", "changed_cache", "save", "commit", "unprotect")}
        for name in self.dvc:
            setattr(out, name, getattr(self, name))

    def get_hash(self) -> HashInfo:
        try:
            return HashInfo("md5", self._listing().digest)
        except _Unusual:
            return self.dvc["get_hash"]()

    def save(self) -> None:
        if not self.out.IS_DEPENDENCY:
            self.seen = None  # the stage has run since
        try:
            listing = self._listing()
        except _Unusual:
            self.dvc["save"]()
            return
        self.out.ignore()
        self.out.meta = Meta(size=listing.size, nfiles=len(listing.names), isdir=True)
        self.out.hash_info = HashInfo("md5", listing.digest)
        self.out.obj, self.out.files = None, None

    def changed_cache(self, filter_info: str | None = None) -> bool:
        try:
            if filter_info is None and self.out.hash_info and self._listing().digest == self.out.hash_info.value:
                return bool(self._lacking())
        except _Unusual:
            pass
        return bool(self.dvc["changed_cache"](filter_info))

    def commit(self, filter_info: str | None = None, relink: bool = True) -> None:
        try:
            if filter_info is not None or self._listing().digest != self.out.hash_info.value:
                raise _Unusual
            lacking = self._lacking()
        except _Unusual:
            self.dvc["commit"](filter_info=filter_info, relink=relink)
            return
        cache, listing = self.out.cache, self._listing()
        paths = listing.having(set(lacking)) if lacking else {}
        fresh = [md5 for md5 in lacking if md5 in paths]
        if fresh:
            cache.add([str(self.path / paths[md5]) for md5 in fresh], self.out.fs, fresh)
        if listing.digest in lacking:
            cache.add_bytes(listing.digest, listing.object)
            cache.protect(cache.oid_to_path(listing.digest))

    def unprotect(self) -> None:
        """Files of a cache that copies are nobody's but the workspace's: there is nothing to undo."""
        try:
            self._listing()
        except _Unusual:
            self.dvc["unprotect"]()

    def _listing(self) -> Listing:
        if self.seen is not None:
            return self.seen
        if self.path.is_symlink() or not self.path.is_dir():
            raise _Unusual
        repo = self.out.repo
        rules = _rules(Path(repo.root_dir))
        store = Path(repo.tmp_dir) / "osteoflow" / f"{hashlib.sha256(bytes(self.path)).hexdigest()[:24]}.jsonl"
        listing = _listings.pop(self.path, None) or _stored(store, self.path)
        if listing is None or listing.rules != rules or not store.exists():
            store.unlink(missing_ok=True)
            listing = Listing(self.path, rules)
        listing.look(repo.dvcignore, store)  # when it raises, the listing is made anew
        self.seen = _listings[self.path] = listing
        return listing

    def _lacking(self) -> list[str]:
        """Digests of the listing that the cache does not hold, that of the directory's own object among them."""
        listing, root = self._listing(), Path(self.out.cache.path)
        lacking = []
        for prefix, rests in listing.wanted.items():
            held = _protected(root, prefix)
            if not rests.keys() <= held:
                lacking += [prefix + rest for rest in rests if rest not in held]
        if listing.digest[2:] not in _protected(root, listing.digest[:2]):
            lacking.append(listing.digest)
        return sorted(lacking)


def _protected(root: Path, prefix: str) -> frozenset[str]:
    """The objects in one folder of the cache. One that is not protected is left to DVC, which reads it again."""
    place = root / prefix
    try:
        time_ns = os.stat(place).st_mtime_ns
    except FileNotFoundError:
        return frozenset()
    known = _whole.get((root, prefix))
    if known is not None and known[0] == time_ns:
        return known[1]
    now = time.time_ns()
    names = []
    with os.scandir(place) as entries:
        for entry in entries:
            if stat.S_IMODE(entry.stat().st_mode) != PROTECTED:
                raise _Unusual
            names.append(entry.name)
    found = frozenset(names)
    _whole[root, prefix] = (time_ns if now - time_ns > RACY_NS else 0, found)
    return found


def _md5(path: str) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _rules(root: Path) -> str:
    path = root / ".dvcignore"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "none"


# ---- between processes: a journal of changes ------------------------------------------------------------------------


def _stored(path: Path, top: Path) -> Listing | None:
    """What an earlier process listed; None when there is nothing, or nothing that can be read."""
    files: dict[str, Known] = {}
    lines = 0
    try:
        with open(path, encoding="utf-8") as handle:
            rules = json.loads(next(handle))
            for line in handle:
                name, *known = json.loads(line)
                lines += 1
                if known:
                    files[name] = (int(known[0]), int(known[1]), int(known[2]), str(known[3]))
                else:
                    files.pop(name, None)
    except (OSError, ValueError, TypeError, IndexError, StopIteration):
        return None
    if lines > 2 * len(files) + 1000:
        path.unlink(missing_ok=True)  # mostly history: written anew
    listing = Listing(top, str(rules))
    for name, entry in files.items():
        folder, _, last = name.rpartition("/")
        place = listing.folders.setdefault(f"{folder}/" if folder else "", _Folder(0, {}, []))
        place.files[last] = entry
    listing._apply(list(files.items()))
    return listing


def _append(path: Path, listing: Listing, changes: list[tuple[str, Known | None]]) -> None:
    fresh = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    if fresh:
        changes = [(folder + name, k) for folder, one in listing.folders.items() for name, k in one.files.items()]
    text = "".join(json.dumps([name, *(known or ())]) + "\n" for name, known in changes)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write((json.dumps(listing.rules) + "\n" if fresh else "") + text)

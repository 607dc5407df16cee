"""The SQLite file of the index: its tables, its transactions, and what is done when it is damaged.

The file is a cache. A damaged one is given up and the next number begins, so that nobody writes into a file that others
have open under the same name. Knows SQLite, not what the rows mean.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import uuid
import weakref
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NoReturn, TypeVar

from modelyard.errors import StoreError

SCHEMA = 1  # a file for each: releases that differ do not spoil each other's

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE pending (key TEXT PRIMARY KEY, since REAL NOT NULL, problem TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE models (
    model TEXT PRIMARY KEY, number INTEGER NOT NULL, entry TEXT NOT NULL, record TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
    place TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, created TEXT NOT NULL, created_by TEXT NOT NULL,
    task TEXT, attempt TEXT NOT NULL, standing TEXT NOT NULL DEFAULT 'current', latest INTEGER NOT NULL DEFAULT 0,
    UNIQUE (name, version)
);
CREATE INDEX versions_of_model ON versions (model);
CREATE INDEX names ON versions (name, standing);
CREATE TABLE manifests (version INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE tags (version INTEGER NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (version, tag)) WITHOUT ROWID;
CREATE TABLE paths (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE facts (
    path INTEGER NOT NULL, value NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (path, value, version)
) WITHOUT ROWID;
"""  # facts.value has no type, so numbers stay numbers and texts texts

_NAME = re.compile(r"(\d+)-(\d+)\.sqlite(?:-wal|-shm)?")
_TIMEOUT_S = 60.0
_UNREADABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_CANNOT_OPEN = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}

Result = TypeVar("Result")


class Rebuilt(Exception):
    """The file was damaged and an empty one has taken its place: what was under way begins again."""


class IndexFile:
    """The file below one folder, for one process and its threads; without a folder, or if it can't be used, memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._number = 0

    def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """What `work` makes of one state of the tables. Raises Rebuilt, StoreError."""
        return self._run(work, "BEGIN")

    def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The same, with the right to change them; others wait meanwhile, so it must ask nobody. Raises likewise."""
        return self._run(work, "BEGIN IMMEDIATE")

    def give_up(self) -> NoReturn:
        """Begin anew with an empty file; raises Rebuilt."""
        with self._lock:
            self._close()
            damaged, self._number = self._number, self._number + 1
            for number, path in self._files():
                if number <= damaged:
                    path.unlink(missing_ok=True)
        raise Rebuilt

    def _run(self, work: Callable[[sqlite3.Connection], Result], begin: str) -> Result:
        with self._lock:
            try:
                connection = self._open()
                connection.execute(begin)
                try:
                    result = work(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.DatabaseError as error:
                if _damaged(error):
                    self.give_up()
                raise StoreError(
                    f"the index in {self._folder} can't be used: {error}",
                    remedy="make room there or set MODELYARD_CACHE to another folder",
                ) from error
            return result

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._process == os.getpid():
            return self._connection
        try:
            connection = self._connect()
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF not in _CANNOT_OPEN:
                raise
            connection = _in_memory()
        self._connection, self._process = connection, os.getpid()
        weakref.finalize(self, connection.close).atexit = False  # a forked child must not close its parent's files
        return connection

    def _connect(self) -> sqlite3.Connection:
        if self._folder is None:
            return _in_memory()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._number = max([self._number, 1, *(number for number, _ in self._files())])
        path = self._folder / f"{SCHEMA}-{self._number}.sqlite"
        if not path.exists():
            _create(path)
        connection = _plain(path)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint=8000")  # pages: fewer pauses in the first sync
        return connection

    def _files(self) -> list[tuple[int, Path]]:
        """The files of this schema with their numbers."""
        if self._folder is None or not self._folder.is_dir():
            return []
        found = ((_NAME.fullmatch(path.name), path) for path in self._folder.iterdir())
        return [(int(match[2]), path) for match, path in found if match and int(match[1]) == SCHEMA]

    def _close(self) -> None:
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        self._connection = None


def _create(path: Path) -> None:
    """Made under another name and linked when complete: whoever opens the file finds the tables in it."""
    building = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with closing(_plain(building)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_TABLES)
        with suppress(FileExistsError):
            os.link(building, path)
    finally:
        building.unlink(missing_ok=True)


def _in_memory() -> sqlite3.Connection:
    connection = _plain(":memory:")
    connection.executescript(_TABLES)
    return connection


def _plain(path: Path | str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_TIMEOUT_S, check_same_thread=False, isolation_level=None)


def _damaged(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is to blame. A statement that fails for a table or column that is not there says so too."""
    code = getattr(error, "sqlite_errorcode", 0)
    truncated = code == sqlite3.SQLITE_IOERR_SHORT_READ
    return code & 0xFF in _UNREADABLE or truncated or "no such" in str(error)

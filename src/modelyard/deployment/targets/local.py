"""The local target: replicas are processes of this machine, each `modelyard serve` of one exact version.

All that is known of a replica stands in its record `replicas/<id>.json`; a supervisor that was killed finds its
replicas again and goes on. Knows processes, ports and logs; what should run is decided elsewhere.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from modelyard.deployment.plan import Replica
from modelyard.errors import Unavailable
from modelyard.refs import Digest, ModelRef, Version
from modelyard.repository import Pin

PORTS = range(20000, 30000)  # below the range systems take outgoing connections from
_PROBE_TIMEOUT_S = 2.0
_PROBE_INTERVAL_S = 1.0
_PROBES_LOST = 5


@dataclass(frozen=True, slots=True)
class Launch:
    """How a replica is started, and the path that answers 200 once it can take requests."""

    argv: list[str]
    ready_path: str


Launcher = Callable[[ModelRef, str, int], Launch]  # (exact reference, replica id, port)


@dataclass(frozen=True, slots=True)
class Record:
    """A replica as its file has it. `pid` is None between its writing and the process's start."""

    id: str
    environment: str
    model: str
    version: str
    digest: str
    rollout: str
    ready_path: str
    port: int
    started: float
    pid: int | None = None
    created: float | None = None
    ready: float | None = None
    stopping: float | None = None
    exited: float | None = None
    error: str = ""


@dataclass(slots=True)
class _Probe:
    """What is remembered of a replica's readiness between two looks."""

    at: float = 0.0
    lost: int = 0


class LocalTarget:
    """The replicas below one folder. `launcher` says how one is started."""

    def __init__(
        self, folder: Path, launcher: Launcher, *, environ: Mapping[str, str], drain_timeout_s: float = 60
    ) -> None:
        self._records = folder / "replicas"
        self._logs = folder / "logs"
        self._launcher = launcher
        self._environ = dict(environ)
        self._kill_after_s = drain_timeout_s + 5
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._probes: dict[str, _Probe] = {}
        self._pool = ThreadPoolExecutor(16)

    def start(self, environment: str, ref: ModelRef, *, rollout: str) -> None:
        """Start a replica of an exact version; it counts from now on, ready or not."""
        for folder in (self._records, self._logs):
            folder.mkdir(parents=True, exist_ok=True)
        name = f"{environment}-{ref.name.replace('/', '_')}-{ref.version}-{uuid.uuid4().hex[:8]}"
        port = _free_port()
        launch = self._launcher(ref, name, port)
        record = Record(
            id=name,
            environment=environment,
            model=ref.name,
            version=str(ref.version),
            digest=str(ref.digest),
            rollout=rollout,
            ready_path=launch.ready_path,
            port=port,
            started=time.time(),
        )
        self._save(record)
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                launch.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                start_new_session=True,  # it outlives its supervisor
            )
        self._children[name] = child
        self._save(replace(record, pid=child.pid, created=_created(child.pid)))

    def observe(self) -> list[Replica]:
        """Every replica as it is now. Ends those that stopped answering and forgets those that ended as they should."""
        looked = self._pool.map(self._look, self._load())
        return [_replica(record) for record in looked if record]

    def peek(self) -> list[Replica]:
        """Every replica as its supervisor last saw it; changes nothing, so any process may ask."""
        return [_replica(record) for record in self._load()]

    def stop(self, replica_id: str) -> None:
        """Ask a replica to finish what it has and end; forget one that has exited."""
        record = self._one(replica_id)
        if record is None:
            return
        if record.exited is not None:
            self._forget(record)
            return
        self._save(replace(record, stopping=time.time()))
        _signal(record, signal.SIGTERM)

    def give_up(self, replica_id: str, reason: str) -> None:
        """End a replica at once and remember it as crashed."""
        record = self._one(replica_id)
        if record and record.exited is None:
            _signal(record, signal.SIGKILL)
            self._save(replace(record, exited=time.time(), error=reason))

    def log(self, replica_id: str) -> Path:
        """The replica's log file."""
        return self._logs / f"{replica_id}.log"

    def logs(self, model: str) -> list[Path]:
        """The log files of a model's replicas, oldest first."""
        stem = f"-{model.replace('/', '_')}-v"
        found = (path for path in self._logs.glob("*.log") if stem in path.name)
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def _look(self, record: Record) -> Record | None:
        if record.exited is not None:
            return record
        record = self._adopt(record)
        if not self._runs(record):
            return self._ended(record)
        if record.stopping is not None:
            if time.time() - record.stopping > self._kill_after_s:
                _signal(record, signal.SIGKILL)
            return record
        return self._probe(record)

    def _adopt(self, record: Record) -> Record:
        """Find the process of a replica whose supervisor was killed just after starting it."""
        if record.pid is not None or record.id in self._children:
            return record
        for process in psutil.process_iter(["cmdline"]):
            if record.id in (process.info["cmdline"] or ()):
                record = replace(record, pid=process.pid, created=_created(process.pid))
                self._save(record)
                break
        return record

    def _runs(self, record: Record) -> bool:
        child = self._children.get(record.id)
        if child is not None:
            return child.poll() is None
        return record.pid is not None and record.created is not None and _created(record.pid) == record.created

    def _ended(self, record: Record) -> Record | None:
        self._children.pop(record.id, None)
        if record.stopping is not None:
            self._forget(record)
            return None
        ended = replace(record, exited=time.time(), error=_last_line(self.log(record.id)))
        self._save(ended)
        return ended

    def _probe(self, record: Record) -> Record:
        probe, now = self._probes.setdefault(record.id, _Probe()), time.time()
        if record.ready is not None and now - probe.at < _PROBE_INTERVAL_S:
            return record
        probe.at = now
        if _answers(f"http://127.0.0.1:{record.port}{record.ready_path}"):
            probe.lost = 0
            if record.ready is None:
                record = replace(record, ready=now)
                self._save(record)
        elif record.ready is not None:
            probe.lost += 1
            if probe.lost >= _PROBES_LOST:
                self.give_up(record.id, "it stopped answering its readiness probe")
        return record

    def _forget(self, record: Record) -> None:
        self._probes.pop(record.id, None)
        self._path(record.id).unlink(missing_ok=True)

    def _one(self, replica_id: str) -> Record | None:
        return next((record for record in self._load() if record.id == replica_id), None)

    def _load(self) -> list[Record]:
        return [Record(**json.loads(path.read_bytes())) for path in _files(self._records)]

    def _save(self, record: Record) -> None:
        path = self._path(record.id)
        beside = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        beside.write_text(json.dumps(asdict(record), indent=1))
        beside.rename(path)

    def _path(self, replica_id: str) -> Path:
        return self._records / f"{replica_id}.json"


def _files(folder: Path) -> Iterable[Path]:
    return sorted(folder.glob("*.json")) if folder.is_dir() else ()


def _replica(record: Record) -> Replica:
    now = time.time()
    pin = Pin(Version.parse(record.version), Digest.parse(record.digest))
    common = (record.id, record.environment, record.model, pin, record.rollout)
    if record.exited is not None:
        return Replica(*common, "exited", now - record.exited, record.port, error=record.error)
    if record.stopping is not None:
        return Replica(*common, "stopping", now - record.stopping, record.port)
    if record.ready is not None:
        return Replica(*common, "ready", now - record.ready, record.port)
    return Replica(*common, "starting", now - record.started, record.port)


def _created(pid: int) -> float | None:
    """When the process began; None if it is gone. With the pid it names one process for good."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def _signal(record: Record, number: signal.Signals) -> None:
    if record.pid is not None and _created(record.pid) == record.created:
        os.kill(record.pid, number)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_TIMEOUT_S) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:300] if lines else ""


def _free_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable(f"no port between {PORTS[0]} and {PORTS[-1]} is free", remedy="stop something that uses them")

"""The local target: replicas are processes of this machine, each `modelyard serve` of one exact version, or a pool.

All that is known of a replica stands in its record `replicas/<id>.json`; a supervisor that was killed finds its
replicas again and goes on. Knows processes, ports and logs; what should run is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import random
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Container, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from modelyard.deployment.plan import Replica
from modelyard.deployment.pools import PoolProcess
from modelyard.deployment.targets import logs as log_files
from modelyard.deployment.targets import pool_client
from modelyard.deployment.targets.launch import Launch, Launcher, PoolLauncher
from modelyard.deployment.targets.memory import Key, MemoryWatch
from modelyard.deployment.targets.records import Record, Records
from modelyard.errors import StoreError, Unavailable
from modelyard.refs import ModelRef
from modelyard.repository import Pin

log = logging.getLogger("modelyard.local")

_PROBE_TIMEOUT_S = 2.0
_PROBE_INTERVAL_S = 1.0  # of one that is ready
_PROBES_LOST = 5
_ROTATE_INTERVAL_S = 5.0
_POOL = "on-demand"  # in place of model and version; `-` stands in no environment's name
_LOGS_KEPT = 20  # of one model, those of running replicas not counted


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """Seconds that a replica may take to finish its requests, ports of replicas, and how many bytes a log takes."""

    drain_timeout_s: float = 60
    ports: range = range(20000, 30000)
    log_size: int = 10 * 2**20


AS_USUAL = LocalOptions()


@dataclass(slots=True)
class _Probe:
    """The question under way whether a replica is ready; `lost` in a row got no answer."""

    answer: Future[bool]
    at: float
    lost: int = 0


class LocalTarget:
    """The replicas below one folder. `launcher` and `pool_launcher` say how one is started."""

    def __init__(
        self,
        folder: Path,
        launcher: Launcher,
        pool_launcher: PoolLauncher,
        options: LocalOptions = AS_USUAL,
        *,
        environ: Mapping[str, str],
    ) -> None:
        self._records = Records(folder / "replicas")
        self._logs = folder / "logs"
        self._launcher = launcher
        self._pool_launcher = pool_launcher
        self._seen: list[Record] = []
        self._environ = dict(environ)
        self._kill_after_s = options.drain_timeout_s + 5
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._probes: dict[str, _Probe] = {}
        self._terminated: set[str] = set()
        self._pool = ThreadPoolExecutor(16)
        self._memory = MemoryWatch(self._pool)
        self._ports = options.ports
        self._log_size = options.log_size
        self._rotated = 0.0

    def start(self, environment: str, ref: ModelRef, *, rollout: str) -> None:
        """Start a replica of an exact version; it counts from now on, ready or not."""
        name = f"{environment}-{_safe(ref.name)}-{ref.version}-{uuid.uuid4().hex[:8]}"
        port = self._port()
        launch = self._launcher(ref, name, port)
        record = Record(
            id=name,
            environment=environment,
            ready_path=launch.ready_path,
            port=port,
            started=time.time(),
            model=ref.name,
            version=str(ref.version),
            digest=str(ref.digest),
            rollout=rollout,
            keeps_connections=launch.keeps_connections,
            engine=launch.engine,
            endpoint=launch.endpoint,
            internal_name=launch.internal_name,
        )
        self._begin(record, launch)

    def start_pool(self, environment: str) -> None:
        """Start the process of an environment's models on demand."""
        name, port = f"{environment}-{_POOL}-{uuid.uuid4().hex[:8]}", self._port()
        launch = self._pool_launcher(environment, name, port)
        log.info("start %s", name)
        self._begin(Record(name, environment, launch.ready_path, port, time.time()), launch)

    def limit_memory(self, limits: Mapping[Key, str]) -> None:
        """What replicas of these versions may take from now on; those that run already, too."""
        self._memory.limits = limits

    def observe(self) -> list[Replica]:
        """Every replica as it is now. Ends those that stopped answering and forgets those that ended as they should.

        Waits for nobody: what a replica answers to its probe is seen the next time.
        """
        looked = [self._look(record) for record in self._records.all()]
        self._seen = [record for record in looked if record]
        self._memory.keep(record.id for record in self._seen)
        self._rotate()
        return [record.replica() for record in self._seen if record.model]

    def pools(self) -> list[PoolProcess]:
        """The pools' processes, as `observe` has seen them."""
        return [record.pool() for record in self._seen if not record.model]

    def running(self) -> set[str]:
        """The ids of all that runs or that nobody has forgotten yet."""
        self.observe()
        return {record.id for record in self._seen}

    def peek(self) -> list[Replica]:
        """Every replica as its supervisor last saw it; changes nothing, so any process may ask."""
        return [record.replica() for record in self._records.all() if record.model]

    def peek_processes(self, model: str) -> list[tuple[Pin, psutil.Process]]:
        """The processes of a model's ready replicas, each with its version."""
        ready = [record for record in self._records.all() if record.model == model and record.ready]
        return [(record.replica().pin, process) for record in ready if (process := _process(record))]

    def free_ports(self) -> int:
        """How many more processes may listen, as far as this target knows."""
        return len(self._ports) - len({record.port for record in self._records.all()})

    def peek_pools(self) -> list[PoolProcess]:
        """The same of the pools."""
        return [record.pool() for record in self._records.all() if not record.model]

    def stop(self, replica_id: str) -> None:
        """Ask a replica to finish what it has and end; forget one that has exited."""
        record = self._records.get(replica_id)
        if record is None:
            return
        if record.exited is not None:
            self._records.forget(record.id)
            return
        self._records.save(replace(record, stopping=time.time()))
        self._terminate(record)

    def give_up(self, replica_id: str, reason: str) -> None:
        """End a replica at once; it will have crashed for this reason."""
        record = self._records.get(replica_id)
        if record and record.exited is None:
            self._records.save(replace(record, error=reason))
            _signal(record, signal.SIGKILL)

    def end_children(self) -> None:
        """End every process that this target started and that still runs, whatever the records say."""
        for child in self._children.values():
            child.terminate()
        deadline = time.monotonic() + self._kill_after_s
        for name, child in self._children.items():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0, deadline - time.monotonic()))
            child.kill()
            self._records.forget(name)

    def log(self, replica_id: str) -> Path:
        """The replica's log file."""
        return self._logs / f"{replica_id}.log"

    def peek_loaded(self) -> set[tuple[str, str, str]]:
        """(environment, model, version) of what the pools have loaded now."""
        pools = [pool for pool in self.peek_pools() if pool.state == "ready"]
        return {(pool.environment, *found) for pool in pools for found in pool_client.loaded(pool.port)}

    def logs(self, model: str = "") -> list[Path]:
        """The log files of a model's replicas, or of the pools, oldest first."""
        kind = rf"{re.escape(_safe(model))}-v\d+\.\d+\.\d+(-.+)?" if model else _POOL
        name = re.compile(rf"[a-z]+-{kind}-[0-9a-f]{{8}}\.log")
        found = (path for path in self._logs.glob("*.log") if name.fullmatch(path.name))
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def _port(self) -> int:
        return _free_port(self._ports, {record.port for record in self._records.all()})

    def _begin(self, record: Record, launch: Launch) -> None:
        self._records.save(record)
        self._make_room(record.model)
        try:
            child = self._spawn(record.id, launch.argv)
        except OSError as error:
            self._records.forget(record.id)
            raise Unavailable(f"{launch.argv[0]} can't be started: {error.strerror}") from error
        self._children[record.id] = child
        self._records.save(replace(record, pid=child.pid))

    def _spawn(self, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as output:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environ,
                start_new_session=True,  # it outlives its supervisor
            )

    def _make_room(self, model: str) -> None:
        """Drop a model's oldest logs: one that keeps crashing would fill the disk."""
        ended = [path for path in self.logs(model) if self._records.get(path.stem) is None]
        for path in ended[:-_LOGS_KEPT]:
            log_files.remove(path)

    def _look(self, record: Record) -> Record | None:
        if record.exited is not None:
            return record
        record = self._adopt(record)
        if not self._runs(record):
            return self._ended(record)
        if record.stopping is not None:
            if record.id not in self._terminated:  # an earlier supervisor was killed before it could say so
                self._terminate(record)
            if time.time() - record.stopping > self._kill_after_s:
                _signal(record, signal.SIGKILL)
            return record
        if excess := self._memory.excess(
            record.id, (record.environment, record.model, record.version), _process(record)
        ):
            self.give_up(record.id, excess)
            return self._records.get(record.id)
        return self._probe(record)

    def _rotate(self) -> None:
        now = time.monotonic()
        if now - self._rotated >= _ROTATE_INTERVAL_S:
            self._rotated = now
            for record in self._seen:
                log_files.rotate(self.log(record.id), self._log_size)

    def _adopt(self, record: Record) -> Record:
        """Find the process of a replica whose supervisor was killed just after starting it."""
        if record.pid is not None:
            return record
        for process in psutil.process_iter(["cmdline"]):
            if record.id in (process.info["cmdline"] or ()):
                record = replace(record, pid=process.pid)
                self._records.save(record)
                break
        return record

    def _terminate(self, record: Record) -> None:
        _signal(record, signal.SIGTERM)
        self._terminated.add(record.id)

    def _runs(self, record: Record) -> bool:
        child = self._children.get(record.id)
        return child.poll() is None if child else _process(record) is not None

    def _ended(self, record: Record) -> Record | None:
        child = self._children.pop(record.id, None)
        self._probes.pop(record.id, None)
        self._terminated.discard(record.id)
        if record.stopping is not None:
            self._records.forget(record.id)
            return None
        away = child is not None and child.returncode == StoreError.exit_code  # of an adopted one nobody knows
        error = record.error or _last_line(self.log(record.id))
        ended = replace(record, exited=time.time(), error=error, blameless=away)
        log.warning("%s ended: %s", ended.id, ended.error or "its log says nothing")
        self._records.save(ended)
        return ended

    def _probe(self, record: Record) -> Record:
        """Take the last probe's answer, if there is one, and send the next when it is time."""
        now, probe = time.time(), self._probes.get(record.id)
        if probe and not probe.answer.done():
            return record
        if probe and record.ready is not None and now - probe.at < _PROBE_INTERVAL_S:
            return record
        lost = 0
        if probe and probe.answer.result():
            if record.ready is None:
                record = replace(record, ready=now)
                self._records.save(record)
                log.info("%s is ready", record.id)
        elif probe and record.ready is not None:
            lost = probe.lost + 1
            if lost >= _PROBES_LOST:
                self.give_up(record.id, "it stopped answering its readiness probe")
        url = f"http://127.0.0.1:{record.port}{record.ready_path}"
        self._probes[record.id] = _Probe(self._pool.submit(_answers, url), now, lost)
        return record


def _process(record: Record) -> psutil.Process | None:
    """The replica's process, while it runs. Its number may be another's by now; its id stands in its command line."""
    if record.pid is None:
        return None
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(record.pid)
        if record.id in process.cmdline():
            return process
    return None


def _signal(record: Record, number: signal.Signals) -> None:
    process = _process(record)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_TIMEOUT_S) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log_files.last_lines(log, 20)]
    return next((line[:300] for line in reversed(lines) if line), "")


def _safe(model: str) -> str:
    """As part of a file's name."""
    return model.replace("/", "_")


def _free_port(ports: range, taken: Container[int]) -> int:
    for port in random.sample(ports, len(ports)):
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable(
        f"no port of {ports[0]}-{ports[-1]} is free",
        remedy="give deployment.ports a wider range, or stop something that uses them",
    )

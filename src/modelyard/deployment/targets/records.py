"""Records of local replicas, a file each: all that a supervisor knows, so that the next one can go on from there."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from modelyard.deployment.plan import HOST, Replica, ReplicaState
from modelyard.deployment.pools import PoolProcess
from modelyard.refs import Digest, Version
from modelyard.repository import Pin


@dataclass(frozen=True, slots=True)
class Record:
    """A replica as its file has it; times in seconds since 1970. `pid` is None between the writing of the record and
    the start of the process. `endpoint` is where requests go if that is not `port` of this machine. `error` says why it
    was ended, or what it said last; `blameless`: it could not reach the store. A pool's process has no model."""

    id: str
    environment: str
    ready_path: str
    port: int
    started: float
    model: str = ""
    version: str = ""
    digest: str = ""
    rollout: str = ""
    keeps_connections: bool = True
    engine: str = ""
    endpoint: tuple[str, int] | None = None
    internal_name: str | None = None
    pid: int | None = None
    ready: float | None = None
    stopping: float | None = None
    exited: float | None = None
    error: str = ""
    blameless: bool = False

    def replica(self) -> Replica:
        state, since = self._state()
        host, port = self.endpoint or (HOST, self.port)
        return Replica(
            id=self.id,
            environment=self.environment,
            model=self.model,
            pin=Pin(Version.parse(self.version), Digest.parse(self.digest)),
            rollout=self.rollout,
            state=state,
            since_s=time.time() - since,
            port=port,
            host=host,
            keeps_connections=self.keeps_connections,
            engine=self.engine,
            internal_name=self.internal_name,
            error=self.error if state == "exited" else "",
            blameless=self.blameless,
        )

    def pool(self) -> PoolProcess:
        state, since = self._state()
        return PoolProcess(self.id, self.environment, state, time.time() - since, self.port, self.error)

    def _state(self) -> tuple[ReplicaState, float]:
        """The state and when it began, in seconds since the epoch."""
        if self.exited is not None:
            return "exited", self.exited
        if self.stopping is not None:
            return "stopping", self.stopping
        if self.ready is not None:
            return "ready", self.ready
        return "starting", self.started


class Records:
    """The records below one folder. One process writes them, any may read them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Record]:
        found = (self._read(path) for path in sorted(self._folder.glob("*.json")))
        return [record for record in found if record]

    def get(self, replica_id: str) -> Record | None:
        return self._read(self._path(replica_id))

    def save(self, record: Record) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(record.id)
        beside = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        beside.write_text(json.dumps(asdict(record), indent=1))
        beside.rename(path)

    def forget(self, replica_id: str) -> None:
        self._path(replica_id).unlink(missing_ok=True)

    def _path(self, replica_id: str) -> Path:
        return self._folder / f"{replica_id}.json"

    @staticmethod
    def _read(path: Path) -> Record | None:
        """None for one that was forgotten in between, or that a machine left half-written when it lost its power: its
        process is gone as well."""
        try:
            return Record(**json.loads(path.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

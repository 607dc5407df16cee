"""The local target with real processes, which are tiny: they answer 200 to everything, or do as they are told."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelyard.deployment.plan import Replica
from modelyard.deployment.targets.launch import Launch
from modelyard.deployment.targets.local import LocalOptions, LocalTarget
from modelyard.deployment.targets.logs import older
from modelyard.deployment.targets.memory import memory_limits, parse_quantity
from modelyard.deployment.targets.records import Record, Records
from modelyard.errors import StoreError, Unavailable
from modelyard.refs import ModelRef
from modelyard.repository import DeploymentSpec
from modelyard.repository.environments import Resources

from .builders import V1, V2, serving

REF = ModelRef("team/digit", V1.version, digest=V1.digest)
SERVER = """
import http.server, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else lambda *_: sys.exit(0))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
CRASH = "import sys; print('loading', flush=True); print('no weights in the folder', file=sys.stderr); sys.exit(1)"
NEVER_READY = "import time; time.sleep(600)"


class Machine:
    """Targets on one folder, as one supervisor after another has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = Records(folder / "replicas")
        self.program = SERVER
        self.extra: tuple[str, ...] = ()
        self._targets: list[LocalTarget] = []
        self.target = self.another()

    def another(self, **options: Any) -> LocalTarget:
        target = LocalTarget(self.folder, self._launch, self._launch, LocalOptions(**options), environ=os.environ)
        self._targets.append(target)  # kept: a Popen that is dropped warns
        return target

    def start(self) -> str:
        """The new replica's id."""
        before = {record.id for record in self.records.all()}
        self.target.start("production", REF, rollout="r1")
        [name] = {record.id for record in self.records.all()} - before
        return name

    def wait(self, condition: Callable[[list[Replica]], bool]) -> list[Replica]:
        """Observe until it is true of what is observed."""
        deadline = time.monotonic() + 20
        while not condition(found := self.target.observe()):
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found

    def wait_ready(self) -> Replica:
        return self.wait(lambda found: bool(found) and found[0].state == "ready")[0]

    def process(self, name: str) -> psutil.Process:
        record = self.records.get(name)
        assert record
        assert record.pid
        return psutil.Process(record.pid)

    def change(self, name: str, **values: object) -> Record:
        record = self.records.get(name)
        assert record
        changed = replace(record, **values)  # type: ignore[arg-type]
        self.records.save(changed)
        return changed

    def end(self) -> None:
        for target in self._targets:
            for child in target._children.values():
                child.kill()
                child.wait()

    def _launch(self, _: ModelRef | str, replica: str, port: int) -> Launch:
        return Launch([sys.executable, "-I", "-S", "-c", self.program, str(port), replica, *self.extra], "/ready")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    try:
        yield machine
    finally:
        machine.end()


def test_from_start_to_stop(machine: Machine) -> None:
    name = machine.start()
    [starting] = machine.target.peek()
    assert (starting.id, starting.state, starting.model, starting.pin) == (name, "starting", "team/digit", V1)
    assert (starting.environment, starting.rollout) == ("production", "r1")
    ready = machine.wait_ready()
    assert ready.port == starting.port
    assert machine.another().peek()[0].state == "ready"
    process = machine.process(name)
    machine.target.stop(name)
    assert machine.target.peek()[0].state == "stopping"
    machine.wait(lambda found: not found)
    assert not process.is_running()
    assert machine.target.logs("team/digit") == [machine.target.log(name)]
    assert machine.target.logs("digit") == []


def test_a_crash_is_remembered_with_its_last_words_until_it_is_forgotten(machine: Machine) -> None:
    machine.program = CRASH
    name = machine.start()
    [crashed] = machine.wait(lambda found: found[0].state == "exited")
    assert (crashed.error, crashed.blameless) == ("no weights in the folder", False)
    assert machine.another().observe()[0].error == crashed.error
    machine.target.stop(name)
    assert machine.target.observe() == []
    machine.target.stop(name)  # twice is no error


def test_what_does_not_end_in_time_is_killed(machine: Machine) -> None:
    machine.extra = ("stubborn",)
    name = machine.start()
    machine.wait_ready()
    process = machine.process(name)
    machine.target.stop(name)
    machine.target.observe()
    assert process.is_running()
    machine.change(name, stopping=time.time() - 66)
    machine.wait(lambda found: not found)
    assert not process.is_running()


def test_without_the_store_a_crash_is_nobodys_fault(machine: Machine) -> None:
    machine.program = f"import sys; sys.exit({StoreError.exit_code})"
    machine.start()
    [crashed] = machine.wait(lambda found: found[0].state == "exited")
    assert crashed.blameless
    assert machine.another().observe()[0].blameless


def test_given_up_it_has_crashed_for_that_reason(machine: Machine) -> None:
    machine.program = NEVER_READY
    name = machine.start()
    assert machine.target.observe()[0].state == "starting"
    machine.target.give_up(name, "it was not ready after 120 s")
    [crashed] = machine.wait(lambda found: found[0].state == "exited")
    assert crashed.error == "it was not ready after 120 s"


def test_one_that_hangs_holds_up_no_other_and_is_given_up(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.deployment.targets.local._PROBE_TIMEOUT_S", 0.05)
    monkeypatch.setattr("modelyard.deployment.targets.local._PROBE_INTERVAL_S", 0.0)
    name = machine.start()
    machine.wait_ready()
    machine.process(name).send_signal(signal.SIGSTOP)
    [crashed] = machine.wait(lambda found: found[0].state == "exited")
    assert crashed.error == "it stopped answering its readiness probe"


def test_another_supervisor_takes_over(machine: Machine) -> None:
    name = machine.start()
    machine.wait_ready()
    machine.target = machine.another()
    [replica] = machine.target.observe()
    assert (replica.id, replica.state) == (name, "ready")
    machine.target.stop(name)
    machine.wait(lambda found: not found or not machine.process(name).is_running() or _reap(machine))


def test_one_whose_supervisor_died_before_it_told_it_to_stop_is_told(machine: Machine) -> None:
    name = machine.start()
    machine.wait_ready()
    machine.change(name, stopping=time.time())
    machine.target = machine.another()
    machine.wait(lambda found: not found or not machine.process(name).is_running() or _reap(machine))


def test_one_whose_supervisor_died_before_it_noted_the_process_is_found(machine: Machine) -> None:
    name = machine.start()
    pid = machine.process(name).pid
    machine.change(name, pid=None)
    machine.target = machine.another()
    machine.wait_ready()
    assert machine.process(name).pid == pid


def test_a_record_without_any_process_has_crashed(machine: Machine) -> None:
    name = machine.start()
    process = machine.process(name)
    process.kill()
    machine.change(name, pid=None)
    machine.target = machine.another()
    _reap(machine)
    assert [r.state for r in machine.target.observe()] == ["exited"]


def test_a_number_that_is_another_process_by_now_is_not_taken_for_it(machine: Machine) -> None:
    name = machine.start()
    machine.process(name).kill()
    _reap(machine)
    machine.change(name, pid=os.getpid())
    machine.target = machine.another()
    machine.target.stop(name)  # must not reach this process
    assert machine.target.observe() == []


def test_peek_changes_nothing(machine: Machine) -> None:
    machine.program = CRASH
    machine.start()
    _reap(machine)
    before = {path: path.read_bytes() for path in machine.folder.rglob("*.json")}
    assert machine.another().peek()[0].state == "starting"
    assert {path: path.read_bytes() for path in machine.folder.rglob("*.json")} == before


def test_broken_records_are_passed_over(machine: Machine) -> None:
    name = machine.start()
    for number, content in enumerate((b"", b"{", b"[]", json.dumps({"id": "x"}).encode())):
        (machine.folder / "replicas" / f"broken{number}.json").write_bytes(content)
    assert [r.id for r in machine.target.observe()] == [name]


def test_a_program_that_is_not_there(machine: Machine) -> None:
    def launch(ref: ModelRef, replica: str, port: int) -> Launch:
        return Launch(["/nonexistent/python", replica], "/ready")

    target = LocalTarget(machine.folder, launch, machine._launch, environ={})
    with pytest.raises(Unavailable, match="/nonexistent/python can't be started: No such file"):
        target.start("production", REF, rollout="r1")
    assert target.observe() == []


def test_a_pool_is_a_process_like_any_other_but_no_replica(machine: Machine) -> None:
    machine.target.start_pool("staging")
    machine.wait(lambda found: [p.state for p in machine.target.pools()] == ["ready"])
    [pool] = machine.target.pools()
    assert (pool.environment, machine.target.observe(), machine.target.peek()) == ("staging", [], [])
    later = machine.another()
    assert later.running() == {pool.id}
    assert later.pools()[0].port == later.peek_pools()[0].port == pool.port
    assert machine.target.logs() == [machine.target.log(pool.id)]
    machine.process(pool.id).kill()
    machine.wait(lambda found: [p.state for p in machine.target.pools()] == ["exited"])
    machine.target.stop(pool.id)
    assert machine.target.running() == set()


def test_old_logs_make_room(machine: Machine) -> None:
    machine.program = "pass"
    logs = machine.folder / "logs"
    logs.mkdir()
    for number in range(30):
        path = logs / f"production-team_digit-v1.0.0-{number:08x}.log"
        path.touch()
        os.utime(path, (number, number))
    (logs / "production-other-v1.0.0-00000000.log").touch()
    name = machine.start()
    left = [path.stem for path in machine.target.logs("team/digit")]
    assert left[-1] == name
    assert len(left) == 21
    assert left[0].endswith("0000000a")
    assert (logs / "production-other-v1.0.0-00000000.log").exists()


def test_the_newest_wish_for_a_version_limits_its_memory() -> None:
    tight, enough = (DeploymentSpec(resources=Resources(memory=limit)) for limit in ("2Mi", ""))
    now = replace(serving(V1), spec=tight, serving_spec=tight)
    key = ("production", "digit", str(V1))
    assert memory_limits({"production": {"digit": now}}) == {key: "2Mi"}
    assert memory_limits({"production": {"digit": now.ask(V1, spec=enough)}}) == {}
    assert memory_limits({"production": {"digit": now.ask(V2, spec=enough)}}) == {key: "2Mi"}


def test_one_that_takes_more_memory_than_it_may_has_crashed(machine: Machine) -> None:
    machine.start()
    machine.wait_ready()
    machine.target.limit_memory({("production", "team/digit", str(V1)): "4Gi"})
    machine.target.observe()
    machine.target.limit_memory({("production", "team/digit", str(V1)): "1Mi"})  # while it runs
    [crashed] = machine.wait(lambda found: found[0].state == "exited")
    assert re.fullmatch(r"it took \d+ MiB of memory, and resources.memory is 1Mi", crashed.error)


def test_a_log_that_has_grown_is_started_anew(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.deployment.targets.local._ROTATE_INTERVAL_S", 0.0)
    machine.program = "print('x' * 2000, flush=True)\n" + SERVER
    machine.target = machine.another(log_size=1000)
    log = machine.target.log(machine.start())
    machine.wait(lambda _: older(log).exists())
    assert log.stat().st_size < older(log).stat().st_size
    assert machine.target.logs("team/digit") == [log]


def test_ports_are_of_the_range(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        machine.target = machine.another(ports=range(port, port + 1))
        assert machine.target.free_ports() == 1  # as far as it knows
        with pytest.raises(Unavailable) as refused:
            machine.start()
    assert str(refused.value) == (
        f"no port of {port}-{port} is free; give deployment.ports a wider range, or stop something that uses them"
    )
    machine.start()
    assert machine.target.free_ports() == 0
    with pytest.raises(Unavailable, match="no port of"):
        machine.start()


@pytest.mark.parametrize(
    ("text", "count"), [("512", 512), ("2Gi", 2**31), ("1.5k", 1500), ("1M", 10**6), ("100m", 0), ("3Ti", 3 * 2**40)]
)
def test_quantities(text: str, count: int) -> None:
    assert parse_quantity(text) == count


def _reap(machine: Machine) -> bool:
    """What the system does for processes whose parent has died."""
    for target in machine._targets:
        for child in target._children.values():
            with suppress(ChildProcessError):
                child.wait(20)
    return True

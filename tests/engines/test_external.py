"""A real TorchServe that is run elsewhere answers behind the gateway of `modelyard up`, by configuration alone."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from modelyard import InferenceGateway

from .running import torchserve
from .support import wait_for
from .test_deployed import machine


@pytest.mark.side_environment
@pytest.mark.timeout(300)
def test_torchserve_behind_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchserve").mkdir()
    with torchserve(tmp_path / "torchserve") as engine, machine(tmp_path, monkeypatch) as yard:
        monkeypatch.chdir(tmp_path)
        value = {"engine": "torchserve", "url": engine.url, "model": engine.model}
        yard.configuration.set_config("external", "legacy", value)
        url = f"{yard.settings.gateway.url}/v2/models/legacy/infer"
        wait_for(lambda: httpx.post(url, json=engine.request).status_code == 200)

        answer = httpx.post(url, json=engine.request)

        assert answer.json()["outputs"][0]["data"] == [2.0, 4.0]
        assert answer.headers["x-modelyard-model"] == "legacy@external"
        assert InferenceGateway().route_request("legacy", engine.request)["outputs"][0]["data"] == [2.0, 4.0]

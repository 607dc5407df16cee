"""The pool over HTTP: exact versions by header, names without one, and the model repository extension."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

from modelyard.errors import InvalidInput
from modelyard.serving.app import MODEL_HEADER, SERVED_HEADER, create_app
from modelyard.serving.memory import Memory
from modelyard.serving.models import Served
from modelyard.serving.pool import Pool
from modelyard.settings import ServingSettings

from .support import Model, infer_body

BROKEN = f"broken:v1.0.0@sha256:{'0' * 64}"


@dataclass
class Shelf:
    """Some models, and one that can't be had."""

    models: list[Model]

    def labels(self) -> Iterable[str]:
        return [BROKEN, *(str(model.version.ref) for model in self.models)]

    def take(self, label: str) -> Served:
        for model in self.models:
            if str(model.version.ref) == label:
                return Served(model.version, model.folder)
        raise InvalidInput("model.onnx is cut off")


def play(models: list[Model], act: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        pool = Pool(Shelf(models), ServingSettings(), Memory(2**30))
        transport = httpx.ASGITransport(create_app(pool))
        async with httpx.AsyncClient(transport=transport, base_url="http://pool", timeout=60) as client:
            await act(client)
        await pool.close()

    asyncio.run(main())


def test_models_of_any_format_answer_at_their_first_request(linear: Model, adder: Model) -> None:
    tensors = [{"name": n, "datatype": "FP32", "shape": [1, 3], "data": [1, -2, 3]} for n in ("a", "b")]

    async def act(client: httpx.AsyncClient) -> None:
        assert (await client.get("/v2")).json()["extensions"] == ["binary_tensor_data", "model_repository"]
        assert (await client.get("/v2/health/ready")).status_code == 200
        summed = await client.post("/v2/models/adder/infer", json={"inputs": tensors})
        label = {SERVED_HEADER: str(linear.version.ref)}
        lined = await client.post("/v2/models/whatever/infer", json=infer_body(1), headers=label)
        assert summed.json()["outputs"][0]["data"] == [2, -4, 6]
        assert (lined.status_code, lined.json()["model_name"]) == (200, "team/linear")
        assert lined.headers[MODEL_HEADER] == str(linear.version.ref)
        listed = await client.get("/v1/models")
        assert {model["id"] for model in listed.json()["data"]} == {"adder:v1.0.0", "team/linear:v1.0.0"}

    play([linear, adder], act)


def test_the_index_and_loading_and_unloading(adder: Model) -> None:
    async def act(client: httpx.AsyncClient) -> None:
        async def states() -> dict[str, tuple[str, str]]:
            entries = (await client.post("/v2/repository/index")).json()
            return {entry["name"]: (entry["state"], entry["reason"]) for entry in entries}

        assert await states() == {"adder": ("UNAVAILABLE", ""), "broken": ("UNAVAILABLE", "")}
        assert (await client.post("/v2/repository/models/adder/load")).status_code == 200
        failed = await client.post("/v2/repository/models/broken/load")
        assert (failed.status_code, failed.json()) == (500, {"error": "model.onnx is cut off"})
        assert await states() == {"adder": ("READY", ""), "broken": ("UNAVAILABLE", "model.onnx is cut off")}
        assert (await client.post("/v2/repository/models/adder/unload")).status_code == 200
        assert (await states())["adder"] == ("UNAVAILABLE", "")

    play([adder], act)


def test_refusals_have_the_shape_of_the_protocol(adder: Model) -> None:
    async def act(client: httpx.AsyncClient) -> None:
        unknown = await client.post("/v2/models/x/infer", json={}, headers={SERVED_HEADER: "x:v1.0.0"})
        assert (unknown.status_code, list(unknown.json())) == (404, ["error"])
        broken = {SERVED_HEADER: BROKEN}
        body = {"model": "broken", "input": "a text"}
        for _ in range(2):
            failed = await client.post("/v1/embeddings", json=body, headers=broken)
            assert failed.status_code == 500
            assert failed.json()["error"]["code"] == "load_failed"
        ready = await client.get("/v2/models/broken/versions/v1.0.0/ready", headers=broken)
        assert ready.status_code == 500

    play([adder], act)


def test_a_file_that_is_not_what_it_says_is_told_by_name(adder: Model, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")

    async def act(client: httpx.AsyncClient) -> None:
        failed = await client.post("/v2/models/adder/infer", json={})
        assert failed.status_code == 500
        assert failed.json()["error"].startswith("model.onnx of adder:v1.0.0 can't be loaded: ")

    play([Model(adder.version, tmp_path)], act)

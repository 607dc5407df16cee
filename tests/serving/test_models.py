from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from modelyard.errors import InvalidInput, NotFound, Unavailable
from modelyard.refs import Version
from modelyard.repository.manifest import Signature, Tensor
from modelyard.serving.batcher import Batcher
from modelyard.serving.models import LoadedModel, Models, example, warm_up
from modelyard.serving.protocol import Arrays
from modelyard.settings import ServingSettings

from .support import EchoRuntime, Model


def loaded(template: Model, refs: Sequence[tuple[str, str]]) -> Models:
    models = Models()
    for name, version in refs:
        manifest = replace(template.version, name=name, version=Version.parse(version))
        models.add(LoadedModel(manifest, EchoRuntime(), cast(Batcher, None)))
    models.loaded = True
    return models


def test_a_bare_name_means_the_highest_version_served(adder: Model) -> None:
    models = loaded(adder, [("m", "v1.9.0"), ("m", "v1.10.0"), ("other", "v3.0.0")])
    assert str(models.find("m").version.version) == "v1.10.0"
    assert str(models.find("m:1.9.0").version.version) == "v1.9.0"
    assert models.versions("m") == ["v1.9.0", "v1.10.0"]


def test_a_tag_finds_the_only_version_and_is_not_guessed_among_several(adder: Model) -> None:
    assert loaded(adder, [("m", "v1.0.0")]).find("m:production").version.name == "m"
    with pytest.raises(NotFound):
        loaded(adder, [("m", "v1.0.0"), ("m", "v2.0.0")]).find("m:production")


def test_a_digest_must_be_that_of_the_version(adder: Model) -> None:
    models = loaded(adder, [("m", "v1.0.0")])
    assert models.find(f"m:v1.0.0@{adder.version.digest}").version.name == "m"
    with pytest.raises(NotFound):
        models.find(f"m:v1.0.0@sha256:{'0' * 64}")


def test_nothing_is_found_before_all_is_loaded(adder: Model) -> None:
    models = loaded(adder, [("m", "v1.0.0")])
    models.loaded = False
    assert not models.ready
    with pytest.raises(Unavailable):
        models.find("m")


def test_a_stopping_server_is_not_ready_but_still_answers(adder: Model) -> None:
    models = loaded(adder, [("m", "v1.0.0")])
    before = models.ready
    models.stopping = True
    assert (before, models.ready) == (True, False)
    assert models.find("m").version.name == "m"


def test_the_example_has_one_row_in_the_signatures_shapes() -> None:
    arrays = example(
        Signature((Tensor("a", "FP16", (-1, 2, -1)), Tensor("t", "BYTES", (-1,)), Tensor("s", "INT8", ())))
    )
    assert {name: (str(array.dtype), array.shape) for name, array in arrays.items()} == {
        "a": ("float16", (1, 2, 1)),
        "t": ("object", (1,)),
        "s": ("int8", ()),
    }


class Refusing(EchoRuntime):
    def infer(self, inputs: Arrays) -> Arrays:
        super().infer(inputs)
        raise RuntimeError("too small")


def warmed(adder: Model, runtime: EchoRuntime) -> list[int]:
    async def main() -> Any:
        model = await warm_up(adder.version, runtime, ServingSettings())
        await model.batcher.close()

    runtime.gate.set()
    asyncio.run(main())
    return runtime.calls


def test_a_model_is_asked_once_before_it_is_ready(adder: Model) -> None:
    assert warmed(adder, EchoRuntime()) == [1]
    assert warmed(adder, EchoRuntime(signature=Signature())) == []


def test_a_model_that_fails_on_zeros_is_not_served(adder: Model) -> None:
    with pytest.raises(InvalidInput, match=r"adder:v1\.0\.0 does not answer a sample request.*too small"):
        warmed(adder, Refusing())


def test_a_model_with_free_lengths_may_refuse_the_guess(adder: Model, capsys: pytest.CaptureFixture[str]) -> None:
    free = Signature((Tensor("x", "FP32", (-1, -1)),), (Tensor("x", "FP32", (-1, -1)),))
    assert warmed(adder, Refusing(signature=free)) == [1]
    assert "served without warm-up" in capsys.readouterr().err

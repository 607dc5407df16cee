from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.engines import ENGINES, choose
from modelyard.engines.engine import TEXT_GENERATION
from modelyard.errors import InvalidInput
from modelyard.repository.manifest import ModelInfo
from modelyard.serving.runtimes import RUNTIMES

GGUF = ModelInfo(task=TEXT_GENERATION, format="gguf")
LLAMA = ModelInfo(task=TEXT_GENERATION, format="transformers")
EMBEDDER = ModelInfo(task="feature-extraction", format="sentence-transformers")
NO_VLLM = {"vllm": "engines.vllm_command is not set"}
NO_OLLAMA = {"ollama": "no Ollama answers"}


@pytest.mark.parametrize(
    ("model", "env", "absent", "engine"),
    [
        (LLAMA, "production", {}, "vllm"),
        (LLAMA, "development", {}, "vllm"),  # neither Ollama nor llama.cpp takes the format
        (GGUF, "production", {}, "llamacpp"),  # vLLM does not take the format
        (GGUF, "development", {}, "ollama"),
        (GGUF, "development", NO_OLLAMA, "llamacpp"),
        (EMBEDDER, "production", NO_VLLM, "pytorch"),
        (EMBEDDER, "development", {}, "pytorch"),
        (ModelInfo(format="onnx"), "production", {}, "pytorch"),
        (ModelInfo(format="torchscript", task="image-classification"), "development", {}, "pytorch"),
        (ModelInfo(format="gguf", task="feature-extraction"), "production", {}, "llamacpp"),
        (ModelInfo(format="gguf"), "development", {}, "llamacpp"),
    ],
)
def test_the_rule(model: ModelInfo, env: str, absent: dict[str, str], engine: str) -> None:
    assert choose(model, ENGINES, env=env, absent=absent.get).engine == engine


def test_what_is_configured_counts_instead() -> None:
    assert choose(GGUF, ENGINES, env="production", configured="ollama").engine == "ollama"
    assert choose(GGUF, ENGINES, env="development", configured="llamacpp").engine == "llamacpp"


def test_engines_that_were_passed_by_are_told() -> None:
    assert choose(GGUF, ENGINES, env="development", absent=NO_OLLAMA.get).passed == NO_OLLAMA
    passed = choose(GGUF, ENGINES, env="production").passed
    assert passed == {"vllm": "it serves transformers (feature-extraction, text-generation)"}


def test_an_engine_that_comes_later_is_not_looked_for() -> None:
    looked: list[str] = []

    def absent(engine: str) -> str | None:
        looked.append(engine)
        return None

    choose(GGUF, ENGINES, env="development", absent=absent)
    choose(EMBEDDER, ENGINES, env="development", absent=absent)
    assert looked == ["ollama", "pytorch"]


@pytest.mark.parametrize(
    ("model", "configured", "absent", "said"),
    [
        (LLAMA, None, NO_VLLM, r"text-generation in the format transformers \(vllm: engines\.vllm_command is not set"),
        (LLAMA, None, NO_VLLM, r"llamacpp: it serves gguf; pytorch: it serves custom"),
        (GGUF, "vllm", {}, r"\(vllm: it serves transformers .*\); choose another engine"),
        (GGUF, "ollama", NO_OLLAMA, r"\(ollama: no Ollama answers\)"),
        (GGUF, "torchserve", {}, "torchserve: modelyard does not start it"),
        (ModelInfo(format="pickle"), None, {}, r"no engine can serve in the format pickle \(pytorch: it serves custom"),
        (ModelInfo(), None, {}, r"no engine can serve files of no known model format \(pytorch"),
    ],
)
def test_a_refusal_names_what_was_considered(
    model: ModelInfo, configured: str | None, absent: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        choose(model, ENGINES, env="production", configured=configured, absent=absent.get)


def test_the_pytorch_server_says_what_its_runtimes_can_load() -> None:
    for serves in ENGINES["pytorch"].serves:
        for known in serves.formats:
            tasks = {task for found, task in RUNTIMES if found == known}
            assert tasks == serves.tasks if serves.tasks else None in tasks
    formats = {found for serves in ENGINES["pytorch"].serves for found in serves.formats}
    assert formats == {found for found, _ in RUNTIMES}


def test_the_page_on_engines_says_what_they_serve() -> None:
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
    rows = {cells[1].strip(" `"): cells for line in page.splitlines() if (cells := line.split("|"))[0] == "" != line}
    for name, engine in ENGINES.items():
        assert rows[name][3].strip() == ", ".join(engine.devices)
        if engine.serves:
            assert rows[name][2].strip() == ", ".join(str(each) for each in engine.serves)

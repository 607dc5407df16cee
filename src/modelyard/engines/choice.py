"""Choosing the engine for a model. Pure.

The rule: a language model goes to vLLM in production, in development to Ollama or, where none answers, to llama.cpp;
everything else goes to the PyTorch server. It goes by the task that inspection found, not by the model's name. Of the
engines that are preferred the first that can serve the model's format is taken; what is configured for a model counts
instead of the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelyard.engines.engine import TEXT_GENERATION, Engine
from modelyard.errors import InvalidInput
from modelyard.repository.manifest import ModelInfo

_LANGUAGE_MODELS = {
    "production": ("vllm", "llamacpp", "pytorch"),
    "development": ("ollama", "llamacpp", "vllm", "pytorch"),
}
_OTHERS = ("pytorch", "llamacpp", "vllm")


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine, and those that come before it with the reason why it is not they."""

    engine: str
    passed: Mapping[str, str]


def preferred(task: str | None, env: str) -> tuple[str, ...]:
    """The engines to consider, the first one first."""
    return _LANGUAGE_MODELS[env] if task == TEXT_GENERATION else _OTHERS


def choose(
    model: ModelInfo,
    engines: Mapping[str, type[Engine]],
    *,
    env: str,
    configured: str | None = None,
    option: bool = False,
    absent: Callable[[str], str | None] = lambda _: None,
) -> Choice:
    """The engine that serves a model. `absent` says why an engine is not there; None: it is. `option`: what is
    `configured` was asked for by an option of the command line.

    Raises InvalidInput, which names the engines that were considered, and what is wrong with each.
    """
    passed: dict[str, str] = {}
    for name in (configured,) if configured else preferred(model.task, env):
        why = _unfit(model, engines[name]) or absent(name)
        if why is None:
            return Choice(name, passed)
        passed[name] = why
    what = " ".join(filter(None, (model.task, model.format and f"in the format {model.format}")))
    tried = "; ".join(f"{name}: {why}" for name, why in passed.items())
    remedy = "bring the model in a format that one of them serves"
    if configured:
        remedy = "choose another engine in the configuration section engines"
    if option:
        remedy = "give another --engine, or leave it out"
    raise InvalidInput(f"no engine can serve {what or 'files of no known model format'} ({tried})", remedy=remedy)


def _unfit(model: ModelInfo, engine: type[Engine]) -> str | None:
    """Why an engine can't serve a model, wherever it is."""
    if not engine.serves:
        return "modelyard does not start it"
    if any(each.takes(model) for each in engine.serves):
        return None
    return f"it serves {', '.join(str(each) for each in engine.serves)}"

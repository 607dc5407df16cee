"""vLLM: the client of a running one, and `run`, which turns this process into one.

vLLM is installed in an environment of its own and known by its command. Source of the options: `vllm serve --help`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from pydantic import SecretStr

from modelyard.engines import openai
from modelyard.engines.engine import TEXT_GENERATION, Serves
from modelyard.engines.http import Client
from modelyard.errors import Unavailable
from modelyard.refs import ModelRef

_EMBEDS = "feature-extraction"
_QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


class VLLMServer:
    """`predict` and `stream` take OpenAI's requests: `messages` or `prompt`; `predict` also `input`."""

    name: ClassVar[str] = "vllm"
    serves: ClassVar[tuple[Serves, ...]] = (Serves(frozenset({"transformers"}), frozenset({TEXT_GENERATION, _EMBEDS})),)
    devices: ClassVar[tuple[str, ...]] = ("cuda", "rocm", "cpu")
    ready_path: ClassVar[str] = "/health"
    keeps_connections: ClassVar[bool] = True
    refuses_with_500: ClassVar[tuple[str, ...]] = ()

    def __init__(self, url: str, *, timeout_s: float = 300, token: SecretStr | None = None) -> None:
        self._client = Client("vLLM", url, "start it with `vllm serve`, or set engines.vllm_url", timeout_s, token)

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        return openai.post(self._client, model_name, request)

    def stream(self, model_name: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return openai.stream(self._client, model_name, request)

    @staticmethod
    def internal_name(ref: ModelRef) -> str | None:
        return ref.name


def program(command: str) -> str:
    """The path of vLLM's command. Raises Unavailable."""
    found = shutil.which(Path(command).expanduser())
    if found is None:
        raise Unavailable(f"there is no program {command}", remedy="set engines.vllm_command to vLLM's")
    return found


def run(
    command: Sequence[str], folder: Path, *, names: Sequence[str], host: str, port: int, drain_s: float
) -> NoReturn:
    """Becomes vLLM on the folder's model: signals reach it, and it finishes its requests before it ends.

    `command` is its program with options of one's own. It answers to each of `names`; the first stands in its
    answers, and all of them in the process list.
    """
    path, *options = program(command[0]), *command[1:]
    argv = [path, "serve", str(folder), "--shutdown-timeout", str(max(1, round(drain_s))), *options]
    argv += ["--host", host, "--port", str(port), "--served-model-name", *names]
    os.execve(path, argv, _QUIET | os.environ)  # noqa: S606 - no shell is what is wanted


def runner(task: str | None) -> tuple[str, ...]:
    """What vLLM has to be told of a model's task: it takes every Llama for one that writes."""
    return ("--runner", "pooling") if task == _EMBEDS else ()


def dtype(options: Sequence[str]) -> str | None:
    """The precision that options ask for."""
    for option, following in zip(options, (*options[1:], ""), strict=False):
        name, equals, value = option.partition("=")
        if name == "--dtype":
            return value if equals else following
    return None


def release(command: str) -> str | None:
    """The version that is installed beside the command; asking vLLM itself takes many seconds."""
    library = Path(program(command)).resolve().parent.parent / "lib"
    found = sorted(library.glob("python3*/site-packages/vllm-*.dist-info"))
    return found[0].name.removeprefix("vllm-").removesuffix(".dist-info") if found else None

"""The process of a custom metric: reads from stdin which function to call for which versions, and writes its numbers.

def mean_error(version: ObservedVersion) -> float:
    answers = version.ask({"inputs": [ROWS]})["outputs"][0]["data"]
    return sum(abs(answer - label) for answer, label in zip(answers, LABELS)) / len(LABELS)

Whoever starts it has to trust the function. It ends itself after its time, even if nobody waits for it any more.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any


class ObservedVersion:
    """A version in a rollout, for a metric. `start` and `end`: of the time that it is judged by, in UTC; `gateway`: the
    address where its requests arrive."""

    def __init__(self, name: str, version: str, span: tuple[float, float], gateway: str, token: str | None) -> None:
        self.name = name
        self.version = version
        self.start, self.end = (datetime.fromtimestamp(each, UTC) for each in span)
        self.gateway = gateway
        self._token = token

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer to a request (with messages, prompt, input or inputs), as JSON.

        It counts as one of the version's requests. Raises ModelyardError for an answer that is an error.
        """
        from pydantic import SecretStr

        from modelyard.deployment.client import ModelClient, message
        from modelyard.errors import EngineError

        token = SecretStr(self._token) if self._token else None
        with ModelClient(self.gateway, f"{self.name}:{self.version}", token=token) as client:
            answer = client.ask(request)
        if answer.status != 200:
            raise EngineError(f"{self.name}:{self.version} answered {message(answer)}")
        return answer.body


def main() -> None:
    """`values`: a number for each version; or `error`, in a line. Without versions the function is only looked for."""
    asked, out = json.load(sys.stdin), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the function prints is no answer
    for number in (signal.SIGALRM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, asked["limit_s"])
    try:
        function = _function(asked["file"], asked["function"], asked["source"])
        found: dict[str, Any] = {"values": [_number(function(ObservedVersion(*each))) for each in asked["versions"]]}
    # The code is its author's, and may raise anything.
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines() or [""]
        found = {"error": f"{type(error).__name__}: {lines[-1]}"}
    with out:
        json.dump(found, out)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that the function has left behind do not matter


def _function(file: str, name: str, source: str) -> Callable[[ObservedVersion], Any]:
    module = ModuleType(file.removesuffix(".py"))
    module.__file__ = file
    exec(compile(source, file, "exec"), module.__dict__)  # noqa: S102 - whoever starts this process trusts it
    function: Callable[[ObservedVersion], Any] = getattr(module, name)
    if not callable(function):
        raise TypeError(f"{name} is no function")
    return function


def _number(value: Any) -> float:
    """May be none at all, such as nan, where there is nothing to tell yet."""
    if value is None or isinstance(value, bool | str | bytes):
        raise TypeError(f"it returned {value!r}, which is no number")
    return float(value)


if __name__ == "__main__":
    main()

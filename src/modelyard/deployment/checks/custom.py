"""Checks in Python of the team's own: a function in a file beside the suite, which gets a `StagedModel`.

def knows_its_name(model: StagedModel) -> str:
    answer = model.ask({"messages": [{"role": "user", "content": "Who are you?"}]})
    assert "Otto" in answer["choices"][0]["message"]["content"], "it does not say its name"
    return "it says its name"

The code runs in this process, with its rights. So it runs only where it is trusted: like a model's own code, when
serving.trust_code names the model or a digest, here also that of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from modelyard.deployment.checks.base import Failed, Planned
from modelyard.deployment.checks.subject import Subject
from modelyard.deployment.suite import Custom, Suite
from modelyard.errors import InvalidInput, ModelyardError, Refused
from modelyard.serving.trust import is_trusted


class StagedModel:
    """The version under validation, for a check to ask."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.name = subject.version.name
        self.version = str(subject.version.version)
        self.metadata = subject.version.metadata

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer to a request (with messages, prompt, input or inputs), as JSON.

        An answer that is an error raises an AssertionError: the version has failed.
        """
        return self._subject.ask(request).body


def custom(suite: Suite, subject: Subject) -> Iterator[Planned]:
    """Raises Refused, before anything is asked, for code that is not trusted."""
    for each in suite.custom:
        _require_trust(subject, each)
        what = f"{Path(each.path).name} ({str(each.digest)[:19]})"
        yield Planned(each.function, what, partial(_custom, subject, each))


def _require_trust(subject: Subject, custom: Custom) -> None:
    trusted, version = subject.known.trusted, subject.version
    if trusted is None or custom.digest in trusted or is_trusted(version, trusted):
        return
    raise Refused(
        f"the check {custom.check} is Python code, which is not trusted",
        remedy=f"read it, then add {custom.digest} to serving.trust_code, or validate with --trust-code",
    )


def _custom(subject: Subject, custom: Custom) -> str:
    where = f"{Path(custom.path).name}:{custom.function}"
    try:
        found = getattr(_module(custom), custom.function)(StagedModel(subject))
    except AssertionError as error:
        raise Failed(" ".join(str(error).split()) or "the assertion in it does not hold") from error
    except ModelyardError:
        raise
    # The code is its author's, and may raise anything.
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines() or [""]
        raise InvalidInput(f"{where} failed: {type(error).__name__}: {lines[-1]}", remedy="mend the check") from error
    if not isinstance(found, str):
        raise InvalidInput(f"{where} returned {found!r}", remedy="return a line that says what was found")
    return " ".join(found.split())


def _module(custom: Custom) -> ModuleType:
    """The very bytes that the suite's digest speaks of."""
    source = Path(custom.path).read_bytes()
    if f"sha256:{hashlib.sha256(source).hexdigest()}" != custom.digest:
        raise InvalidInput(f"{custom.path} was changed meanwhile", remedy="validate again")
    module = ModuleType(Path(custom.path).stem)
    module.__file__ = custom.path
    exec(compile(source, custom.path, "exec"), module.__dict__)  # noqa: S102 - it is trusted
    return module

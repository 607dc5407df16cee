"""Changing how a model runs, as people write it: `resources.gpus=1`. How a version takes over is the wish's. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelyard.errors import InvalidInput
from modelyard.repository import DeploymentSpec
from modelyard.store.documents import problem

MOST_REPLICAS = 64
ANYWHERE = ("replicas", "min_replicas", "resources.memory")  # what has an effect on one machine, too
_EXAMPLES = {"resources.cpu": "500m or 2", "resources.memory": "512Mi or 2Gi"}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_adapter = TypeAdapter(DeploymentSpec)


def changed(spec: DeploymentSpec, changes: Iterable[str]) -> DeploymentSpec:
    """The spec with `key=value` changes, such as `resources.gpus=1`. Raises InvalidInput."""
    document: dict[str, Any] = _adapter.dump_python(spec, mode="json", exclude={"strategy"})
    set_before: set[str] = set()
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InvalidInput(f"{change!r} sets nothing", remedy="write it as replicas=2 or resources.memory=2Gi")
        if key in set_before:
            raise InvalidInput(f"{key} is set twice", remedy="set it once")
        set_before.add(key)
        first, _, second = key.partition(".")
        inner = isinstance(document.get(first), dict)
        known = (
            first in document and inner == bool(second) and (first == "env" or not inner or second in document[first])
        )
        if not known:
            raise InvalidInput(f"a deployment has no {key!r}", remedy=f"use one of {', '.join(_keys(document))}")
        if first == "env" and not _VARIABLE.fullmatch(second):
            raise InvalidInput(f"{second!r} can't be a variable's name", remedy="use letters, digits and '_'")
        if inner:
            document[first][second] = value
        else:
            document[first] = value or None
        if first == "replicas" and "min_replicas" not in set_before:  # of its own, no longer on demand
            document["min_replicas"] = None
    try:
        found = replace(_adapter.validate_python(document), strategy=spec.strategy)
    except ValidationError as error:
        raise _refusal(error) from error
    _check(found)
    return found


def _refusal(error: ValidationError) -> InvalidInput:
    first = error.errors()[0]
    if first["type"] != "string_pattern_mismatch":
        return InvalidInput(f"this can't be set: {problem(error)}", remedy="mend the value")
    key = ".".join(map(str, first["loc"]))
    return InvalidInput(f"{key} can't be {first['input']!r}", remedy=f"write {_EXAMPLES[key]}")


def _check(spec: DeploymentSpec) -> None:
    """Earlier entries of the journals may hold other numbers, so the values themselves take them."""
    if not 1 <= spec.replicas <= MOST_REPLICAS:
        raise InvalidInput(
            f"replicas can't be {spec.replicas}", remedy=f"give 1 to {MOST_REPLICAS}, or use `modelyard undeploy`"
        )
    if spec.min_replicas not in (None, 0):
        raise InvalidInput(f"min_replicas can't be {spec.min_replicas}", remedy="give 0, or replicas")
    if spec.max_replicas is not None and spec.max_replicas < spec.replicas:
        raise InvalidInput(
            f"max_replicas can't be {spec.max_replicas} with {spec.replicas} replicas", remedy="give no fewer"
        )


def _keys(document: dict[str, Any]) -> list[str]:
    plain = [key for key, value in document.items() if not isinstance(value, dict)]
    return [*plain, *(f"resources.{key}" for key in document["resources"]), "env.NAME"]

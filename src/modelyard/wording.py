"""What a check of outside data found, said in plain words. Knows Pydantic's kinds of errors, not what is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

_PLAIN = {
    "missing": "it is missing",
    "extra_forbidden": "it is not known here",
    "string_pattern_mismatch": "it must match the pattern {pattern}",
    "string_type": "it must be a text",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "list_type": "it must be a list",
    "tuple_type": "it must be a list",
    "dict_type": "it must be an object of keys and values",
    "model_type": "it must be an object of keys and values",
    "model_attributes_type": "it must be an object of keys and values",
    "greater_than": "it must be above {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be below {lt}",
    "less_than_equal": "it must be at most {le}",
    "literal_error": "it must be {expected}",
    "string_too_short": "it must not be empty",  # no text has another bound
    "too_short": "it must hold at least {min_length}",
}


def problem(error: ValidationError) -> str:
    """The first thing that is wrong, and where: `metric.threshold: it is missing`."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {phrase(first)}" if place else phrase(first)


def phrase(found: Mapping[str, Any]) -> str:
    """One of an error's findings, without its place."""
    if found["type"] in _PLAIN:
        return _PLAIN[found["type"]].format_map({key: _number(each) for key, each in found.get("ctx", {}).items()})
    return str(found["msg"]).removeprefix("Value error, ")


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fields(schema: Mapping[str, Any], place: Sequence[int | str]) -> list[str]:
    """The fields that there may be at a place in a document, by its JSON schema; none where any may be."""
    here: Any = schema
    for step in (*place, None):
        while isinstance(here, Mapping) and not here.get("properties"):
            if "$ref" in here:
                here = schema["$defs"][here["$ref"].rpartition("/")[2]]
            elif options := [each for each in here.get("anyOf", ()) if each.get("type") != "null"]:
                here = options[0]
            else:
                break
        if step is not None:
            here = here.get("properties", {}).get(step, {})
    return list(here.get("properties", ()))

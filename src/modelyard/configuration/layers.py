"""The layers of configuration, each above the one before: defaults, bucket, environment, process.

Knows what modelyard assumes by itself and how variables are read; knows nothing of the bucket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.configuration import sections
from modelyard.errors import InvalidInput, SettingsError
from modelyard.store.documents import to_json

PREFIX = "MODELYARD_CONFIG__"
DEFAULTS: dict[str, dict[str, Any]] = {"embeddings": {"semantic-search": "all-MiniLM-L6-v2"}}

_SECTION = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Found:
    """A value that counts, and where it comes from: `default`, `bucket`, `variable …` or `process`."""

    value: Any
    origin: str


Layer = dict[str, Found]


def check_section(section: str) -> str:
    """Raises InvalidInput for what is no section's name."""
    if not _SECTION.fullmatch(section):
        raise InvalidInput(
            f"{section!r} is not a configuration section", remedy="use lower-case letters, digits and '-'"
        )
    return section


def check(section: str, key: str, value: Any) -> str:
    """The key as it is kept. Raises InvalidInput for what JSON or the section's type can't hold."""
    if not key:
        raise InvalidInput("a configuration key can't be empty", remedy="name the key")
    key = sections.canonical(check_section(section), key)
    sections.refuse_misspelt(section)
    sections.parse(section, key, value)
    to_json(value, what=f"{section}.{key}")
    return key


def layer(section: str, values: Mapping[str, Any], origin: str) -> Layer:
    return {sections.canonical(section, key): Found(value, origin) for key, value in values.items()}


def defaults(section: str) -> Layer:
    return layer(section, DEFAULTS.get(section, {}), "default")


def parse(section: str, values: Layer) -> dict[str, Any]:
    """Each value as the section's type. Raises InvalidInput that names where a wrong one comes from."""
    return {key: _parse(section, key, found) for key, found in values.items()}


def _parse(section: str, key: str, found: Found) -> Any:
    try:
        return sections.parse(section, key, found.value)
    except InvalidInput as error:
        raise InvalidInput(
            f"{error.message} (from the {found.origin})",
            remedy=f"set another value with `modelyard config set {section} {key} VALUE`",
        ) from error


def from_variables(environ: Mapping[str, str]) -> dict[str, Layer]:
    """What variables say, by section.

    `MODELYARD_CONFIG__EMBEDDINGS__SEMANTIC_SEARCH` is one key of a section: in lower case, with `-` for `_`, its value
    JSON or text. `MODELYARD_CONFIG__ROUTING` is a JSON object, whose keys are taken as they are: so any key can be
    said. Where both say something, the first counts. Raises SettingsError that names the variable.
    """
    found: dict[str, Layer] = {}
    ours = {name: text for name, text in environ.items() if name.upper().startswith(PREFIX)}
    for name, text in sorted(ours.items(), key=lambda pair: pair[0].count("__")):  # whole sections first
        section, _, key = name[len(PREFIX) :].lower().replace("_", "-").partition("--")
        try:
            values = {key: _json_or_text(text)} if key else _object(text)
            checked = {check(section, each, value): value for each, value in values.items()}
        except InvalidInput as error:
            raise SettingsError(f"the variable {name}: {error.message}", remedy="mend or unset it") from error
        found.setdefault(section, {}).update(layer(section, checked, f"variable {name}"))
    return found


def merged(layers: Iterable[Layer]) -> Layer:
    """Every key with the value of the highest layer that has it."""
    return {key: found for each in layers for key, found in each.items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _object(text: str) -> dict[str, Any]:
    value = _json_or_text(text)
    if not isinstance(value, dict):
        raise InvalidInput("a whole section is a JSON object", remedy='write {"key": value}')
    return value

"""The page of settings, made from the models of modelyard.settings: every setting, its default and its meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo

from modelyard.settings import Settings

_COMPUTED = {"cache": "`~/.cache/modelyard`", "state": "`~/.local/state/modelyard`", "user": "`<login>@<host>`"}
_UNSET = {"engines.pytorch_url": "the gateway", "engines.llamacpp_url": "the gateway"}

_HEAD = """\
# Settings

<!-- Written by docs/generate.py. Change the models in src/modelyard/settings.py instead. -->

Settings come from `modelyard.toml` in the current folder, or the nearest one above it; a variable wins over the file,
an option of the command line over both. They are read once, when a command starts. A value that can't be understood,
or a key of the file that is not listed here, ends the command with one line that names it.

```toml
store = "s3://models/team-a"

[gateway]
port = 8080
```

The same in variables: `MODELYARD_STORE=s3://models/team-a MODELYARD_GATEWAY__PORT=8080`. Sections and keys are joined
by two underscores.

Credentials of object stores are no settings: they come from the usual variables, profiles and roles (`AWS_…`,
`GOOGLE_…`, `AZURE_…`).
"""


def page() -> str:
    """docs/settings.md. Raises ValueError for a setting without a description."""
    sections: dict[str, list[str]] = {}
    for key, field in _settings(Settings):
        sections.setdefault(key.rpartition(".")[0], []).append(_row(key, field))
    tables = [
        f"\n## {f'[{section}]' if section else 'At the top of the file'}\n\n"
        "| key | variable | default | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
        for section, rows in sections.items()
    ]
    return _HEAD + "".join(tables)


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of every setting, those of sections last."""
    nested = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            nested[name] = field.annotation
        else:
            yield f"{prefix}{name}", field
    for name, section in nested.items():
        yield from _settings(section, f"{name}.")


def _row(key: str, field: FieldInfo) -> str:
    variable = f"MODELYARD_{key.upper().replace('.', '__')}"
    if not field.description:
        raise ValueError(f"the setting {key} has no description")
    return (
        f"| `{key.rpartition('.')[2]}` | `{variable}` | {_default(key, field)} | {field.description}{_bounds(field)} |"
    )


def _default(key: str, field: FieldInfo) -> str:
    if key in _COMPUTED:
        return _COMPUTED[key]
    if field.is_required():
        return "none; it must be set"
    default: Any = field.get_default(call_default_factory=True)
    if isinstance(default, ByteSize):
        return f"`{default.human_readable(separator=' ').replace('.0', '')}`"
    if default is None:
        return _UNSET.get(key, "unset")
    return f"`{_toml(default)}`"


def _toml(value: Any) -> str:
    """As `modelyard.toml` has it; a text without its quotation marks."""
    return value if isinstance(value, str) else json.dumps(value)


def _bounds(field: FieldInfo) -> str:
    """The limits that a value is checked against."""
    words = {Ge: ("from", "ge"), Gt: ("above", "gt"), Le: ("up to", "le")}
    found = [f"{words[type(m)][0]} {getattr(m, words[type(m)][1]):,}" for m in field.metadata if type(m) in words]
    return f" ({' '.join(found)})" if found else ""

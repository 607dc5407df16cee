"""The model card: the YAML between two `---` lines that README.md begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from modelyard.importer.inspect.folder import Folder, text

_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class Card:
    """What its author says of a model."""

    task: str | None = None
    license: str | None = None
    languages: tuple[str, ...] | None = None


def read(folder: Folder) -> Card:
    """An absent or unreadable card says nothing: it is prose, not part of the model."""
    fields = _front_matter(folder)
    language = fields.get("language")
    languages = [language] if isinstance(language, str) else language
    named = [text(fields.get(key)) for key in ("license", "license_name")]
    return Card(
        task=text(fields.get("pipeline_tag")),
        license=named[1] if named[0] == "other" and named[1] else named[0],
        languages=tuple(item for item in languages if isinstance(item, str)) or None
        if isinstance(languages, list)
        else None,
    )


def _front_matter(folder: Folder) -> dict[str, Any]:
    if "README.md" not in folder.files or "README.md" in folder.pickles:
        return {}
    with folder.files["README.md"].open() as stream:
        lines = stream.read(_LIMIT).decode(errors="replace").splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return {}
    try:
        # The base loader keeps every scalar a string: the language "no" is Norwegian, not False.
        found = yaml.BaseLoader("\n".join(lines[1 : lines.index("---", 1)])).get_single_data()
    except (yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

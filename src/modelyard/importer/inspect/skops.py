"""skops: scikit-learn models as a zip of arrays beside a schema.json, which names every type in it. No pickle."""

from __future__ import annotations

import zipfile
from typing import Any

from modelyard.importer.inspect import card
from modelyard.importer.inspect.folder import Folder, broken, parse_json, text
from modelyard.repository.manifest import ModelInfo

_SCHEMA_LIMIT = 64 << 20
_TASKS = {"Classifier": "tabular-classification", "Regressor": "tabular-regression"}


def describe(folder: Folder) -> ModelInfo | None:
    paths = folder.named(".skops")
    if not paths:
        return None
    estimators = [_estimator(_schema(folder, path)) for path in paths]
    architecture = estimators[0] if len(estimators) == 1 else None
    said = card.read(folder)
    return ModelInfo(
        task=said.task or _task(architecture),
        format="skops",
        framework="scikit-learn",
        architecture=architecture,
        languages=said.languages,
        license=said.license,
    )


def _schema(folder: Folder, path: str) -> dict[str, Any]:
    try:
        with folder.files[path].open() as stream, zipfile.ZipFile(stream) as archive:
            if archive.getinfo("schema.json").file_size > _SCHEMA_LIMIT:
                raise broken(path, f"its schema is longer than {_SCHEMA_LIMIT >> 20} MB")
            schema = parse_json(archive.read("schema.json"), path)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError):
        raise broken(path, "it is no zip with a schema.json in it") from None
    if not isinstance(schema, dict):
        raise broken(path, "its schema is not a JSON object")
    return schema


def _estimator(schema: dict[str, Any]) -> str | None:
    """The class of the model; of a pipeline, that of its last step, which gives the answers."""
    name = text(schema.get("__class__"))
    if name != "Pipeline":
        return name
    match schema.get("content"):
        case {"content": {"steps": {"content": [*_, {"content": [_, {"__class__": str(last)}]}]}}}:
            return last
    return name


def _task(architecture: str | None) -> str | None:
    return next((task for ending, task in _TASKS.items() if (architecture or "").endswith(ending)), None)

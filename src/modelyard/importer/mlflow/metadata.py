"""What MLflow knows about a model, as metadata of ours: pure translation.

Metrics, params, description and signature lie on top, where searches and servers look; the rest below `mlflow`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from modelyard.errors import InvalidInput, Refused
from modelyard.importer.mlflow.documents import Experiment, Logged, ModelVersion, Pair, RegisteredModel, Run, pairs
from modelyard.refs import parse_free_tag

_NOTE = "mlflow.note.content"
_KEPT_TAGS = ("mlflow.source.name", "mlflow.source.git.commit", "mlflow.source.git.repoURL", "mlflow.user")
_DATATYPES = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that was found out about one model; what there is none of is None."""

    version: ModelVersion | None = None
    registered: RegisteredModel | None = None
    run: Run | None = None
    logged: Logged | None = None
    experiment: Experiment | None = None


def metadata(known: Known, mlmodel: dict[str, Any]) -> dict[str, Any]:
    """The whole, without what is empty."""
    measured = [part.data for part in (known.run, known.logged) if part]
    found = {
        "description": _description(known),
        "metrics": _metrics(known),
        "params": {param.key: param.value for data in measured for param in data.params},
        "signature": signature(mlmodel.get("signature")),
        "mlflow": _own(known, mlmodel),
    }
    return {key: value for key, value in found.items() if value}


def _metrics(known: Known) -> dict[str, float | str]:
    """The model's own before the run's, which may have logged several models."""
    run = {metric.key: metric.value for metric in known.run.data.metrics} if known.run else {}
    own = {metric.key: metric.value for metric in known.logged.data.metrics} if known.logged else {}
    # Of a logged model MLflow gives 0 for what is no number; the run still knows.
    return run | {key: value for key, value in own.items() if not isinstance(run.get(key), str)}


def _description(known: Known) -> str:
    notes = [pairs(part.tags).get(_NOTE, "") for part in ((known.run.data,) if known.run else ())]
    said = [part.description for part in (known.version, known.registered) if part]
    return next((text for text in [*said, *notes] if text), "")


def _own(known: Known, mlmodel: dict[str, Any]) -> dict[str, Any]:
    version, run, logged = known.version, known.run, known.logged
    found = {
        "model": version.name if version else None,
        "version": version.version if version else None,
        "stage": version.current_stage if version and version.current_stage != "None" else None,
        "aliases": sorted(version.aliases) if version else None,
        "tags": _tags(version.tags if version else logged.info.tags if logged else ()),
        "model_tags": _tags(known.registered.tags) if known.registered else None,
        "registered_at": _time(version.creation_timestamp) if version else None,
        "model_id": logged.info.model_id if logged else None,
        "run_id": run.info.run_id if run else None,
        "run_name": run.info.run_name if run else None,
        "run_tags": _tags(run.data.tags) if run else None,
        "user": run.info.user_id if run else None,
        "experiment": known.experiment.name if known.experiment else None,
        "experiment_id": known.experiment.experiment_id if known.experiment else None,
        "flavors": _flavors(mlmodel.get("flavors")),
        "signature": _signature(mlmodel.get("signature")),
        "mlflow_version": _text(mlmodel.get("mlflow_version")),
    }
    return {key: value for key, value in found.items() if value}


def _tags(found: Sequence[Pair]) -> dict[str, str]:
    """People's own tags, and of MLflow's those that say where a model comes from."""
    return {k: v for k, v in sorted(pairs(found).items()) if not k.startswith("mlflow.") or k in _KEPT_TAGS}


def tag_of(alias: str) -> str | None:
    """The tag that an alias becomes; None where tags can't be called that, or are set by other means."""
    tag = alias.lower().replace("_", "-")
    try:
        return parse_free_tag(tag)
    except (InvalidInput, Refused):
        return None


def read_mlmodel(data: bytes) -> dict[str, Any]:
    """The document in a file named MLmodel. Raises InvalidInput."""
    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput("MLmodel can't be read: it is not the YAML that MLflow writes", remedy="log the model again")
    return found


def _flavors(found: Any) -> dict[str, dict[str, Any]]:
    """Flavor → what is plain in its description. Not the whole: YAML may refer to itself."""
    if not isinstance(found, dict):
        return {}
    plain = (str, int, float, bool)
    return {
        str(flavor): {str(k): v for k, v in said.items() if isinstance(v, plain)}
        for flavor, said in found.items()
        if isinstance(said, dict)
    }


def _signature(found: Any) -> dict[str, Any]:
    """MLflow's own, parsed out of the JSON texts that it keeps."""
    if not isinstance(found, dict):
        return {}
    return {part: value for part in ("inputs", "outputs", "params") if (value := _json(found.get(part)))}


def signature(found: Any) -> dict[str, Any] | None:
    """Ours, for models that take and give tensors; columns of tables have none."""
    own = _signature(found)
    if not own.get("inputs"):
        return None
    sides = {side: _tensors(own.get(side, []), side.rstrip("s")) for side in ("inputs", "outputs")}
    return sides if all(tensors is not None for tensors in sides.values()) else None


def _tensors(specs: Any, noun: str) -> list[dict[str, Any]] | None:
    tensors = []
    for index, spec in enumerate(specs if isinstance(specs, list) else [None]):
        tensor = spec.get("tensor-spec") if isinstance(spec, dict) and spec.get("type") == "tensor" else None
        shape = tensor.get("shape") if isinstance(tensor, dict) else None
        datatype = _DATATYPES.get(str(tensor.get("dtype"))) if isinstance(tensor, dict) else None
        if not datatype or not isinstance(shape, list) or not all(type(n) is int and n >= -1 for n in shape):
            return None
        tensors.append({"name": _text(spec.get("name")) or f"{noun}-{index}", "datatype": datatype, "shape": shape})
    return tensors


def _json(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(milliseconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat() if milliseconds else None
    except (ValueError, OverflowError, OSError):
        return None

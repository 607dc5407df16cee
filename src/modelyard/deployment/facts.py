"""What a version runs on: the facts that evidence is bound to."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from modelyard.repository import ModelVersion

_LIBRARIES = {
    "gguf": ("llamacpp", "xllamacpp"),
    "onnx": ("pytorch", "onnxruntime"),
    "skops": ("pytorch", "scikit-learn"),
}


def engine_of(model: ModelVersion) -> dict[str, str]:
    """What a version runs on in the engines that are part of modelyard: engine, its version, the precision, the class
    of device."""
    engine, library = _LIBRARIES.get(model.model.format or "", ("pytorch", "torch"))
    try:
        release = version(library)
    except PackageNotFoundError:
        release = "unknown"
    precision = _declared_precision(model) or model.model.quantization or model.model.dtype or "unknown"
    return {"engine": engine, "version": f"{library} {release}", "precision": precision, "device": "cpu"}


def _declared_precision(model: ModelVersion) -> str | None:
    """What its metadata say under `serving` (serving/runtimes/precision.py), where that is refused if it is wrong."""
    declared = model.metadata.get("serving")
    precision = declared.get("precision") if isinstance(declared, dict) else None
    return str(precision) if precision else None

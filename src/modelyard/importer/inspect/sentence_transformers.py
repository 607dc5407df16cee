"""sentence-transformers: modules.json names a chain of modules, the first of which is a transformers model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelyard.importer.inspect import card, safetensors, transformers
from modelyard.importer.inspect.folder import Folder, broken, text, whole
from modelyard.repository.manifest import ModelInfo

_MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def describe(folder: Folder) -> ModelInfo | None:
    if "modules.json" not in folder.files:
        return None
    modules = _modules(folder)
    if not any("sentence_transformers" in kind for _, kind in modules):
        return None
    first = modules[0][0]
    said = card.read(folder)
    info = transformers.from_config(folder, first) or ModelInfo(languages=said.languages, license=said.license)
    files = [file for path, _ in modules for file in safetensors.main_files(folder, path)]
    weights = safetensors.read(folder, files)
    return replace(
        info,
        task=_task(folder, said.task),
        format="sentence-transformers",
        framework="pytorch",
        parameters=weights.parameters if info.quantization is None else None,
        dtype=weights.dtype or info.dtype,
        context_length=_context_length(folder, first, info.context_length),
        embedding_dimension=_dimension(folder, modules),
    )


def _modules(folder: Folder) -> list[tuple[str, str]]:
    """(path, type) of each module, in order."""
    listed = folder.json("modules.json")
    if not isinstance(listed, list) or not listed:
        raise broken("modules.json", "it does not list modules")
    modules = []
    for module in listed:
        match module:
            case {"path": str(path), "type": str(kind)}:
                modules.append((path.strip("/"), kind))
            case _:
                raise broken("modules.json", "a module lacks its path or type")
    return modules


def _task(folder: Folder, said: str | None) -> str | None:
    """Cross encoders and sparse encoders have modules.json too, and say so; what says nothing gives embeddings."""
    kind = folder.object("config_sentence_transformers.json").get("model_type", "SentenceTransformer")
    if kind == "CrossEncoder":
        return "text-ranking"
    return said or ("feature-extraction" if kind == "SentenceTransformer" else None)


def _context_length(folder: Folder, first: str, positions: int | None) -> int | None:
    prefix = f"{first}/" if first else ""
    if said := whole(folder.object(f"{prefix}sentence_bert_config.json").get("max_seq_length")):
        return said
    tokens = whole(folder.object(f"{prefix}tokenizer_config.json").get("model_max_length"))
    return min(tokens, positions) if tokens and positions else positions


def _dimension(folder: Folder, modules: list[tuple[str, str]]) -> int | None:
    """The length of the vectors that the last pooling or dense module gives."""
    length = None
    for path, kind in modules:
        config = folder.object(f"{path}/config.json")
        if kind.endswith(".Pooling"):
            length = _pooled(config)
        elif kind.endswith(".Dense"):
            length = whole(config.get("out_features"))
    return length


def _pooled(config: dict[str, Any]) -> int | None:
    """Several ways of pooling at once are put side by side. Older releases name them with one flag each."""
    width = whole(config.get("embedding_dimension")) or whole(config.get("word_embedding_dimension"))
    mode = config.get("pooling_mode")
    if text(mode):
        ways = 1
    elif isinstance(mode, list):
        ways = len(mode)
    else:
        ways = sum(config.get(f"pooling_mode_{name}") is True for name in _MODES)
    return width * ways if width and ways else None

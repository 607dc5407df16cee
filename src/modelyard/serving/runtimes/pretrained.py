"""What the runtimes of transformers models share: loading from local files, tokenizing, logits to probabilities.

Computes in float32, whatever the weights are stored in. No code that came with a model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, MissingExtra
from modelyard.repository.manifest import ModelVersion, Signature, Tensor
from modelyard.serving.cores import usable_cores
from modelyard.serving.protocol import Arrays

try:
    import torch
    import transformers
    from transformers.utils import logging
except ImportError as error:
    raise MissingExtra("transformers", "serve") from error

_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def load_model(version: ModelVersion, folder: Path, kind: str) -> Any:
    """The model in a folder through one of transformers' Auto classes, ready to compute."""
    auto = getattr(transformers, kind)
    model, report = load_with(
        version, lambda: auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **_LOCAL)
    )
    if missing := sorted(report["missing_keys"]):
        raise InvalidInput(
            f"{version.name}:{version.version} can't be served: its files hold no weights for {missing[0]}",
            remedy="register the model that was fine-tuned for this task",
        )
    return model.eval()


def load_image_processor(version: ModelVersion, folder: Path) -> Any:
    """The image processor saved with the model, in its variant for Pillow and numpy."""
    auto: Any = transformers.AutoImageProcessor
    return load_with(version, lambda: auto.from_pretrained(folder, backend="pil", **_LOCAL))


def load_with(version: ModelVersion, load: Callable[[], Any]) -> Any:
    """What `load` gives, quietly. Raises InvalidInput, in one line, for whatever the library stumbles over."""
    torch.set_num_threads(usable_cores())
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    name = f"{version.name}:{version.version}"
    try:
        return load()
    except UnpicklingError as error:  # torch reads pickles of weights alone, and advises to let it read anything
        raise InvalidInput(
            f"{name} can't be loaded: its pickle holds more than weights", remedy="convert it to safetensors"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if "trust_remote_code" in str(error):
            raise InvalidInput(f"{name} can't be loaded: it needs code of its own, which is not run") from error
        raise InvalidInput(f"{name} can't be loaded as a transformers model: {lines[0]}") from error


class Tokenizer:
    """The tokenizer saved with the model, cutting at the length that the model can take."""

    def __init__(self, version: ModelVersion, folder: Path, model: Any) -> None:
        auto = transformers.AutoTokenizer
        self.inner = load_with(version, lambda: auto.from_pretrained(folder, **_LOCAL))
        if self.inner.pad_token is None:
            self.inner.pad_token = self.inner.eos_token or self.inner.unk_token
        if model.config.pad_token_id is None:
            model.config.pad_token_id = self.inner.pad_token_id
        self.limit = min(self.inner.model_max_length, _positions(model))

    def features(self, texts: Iterable[str], **options: Any) -> list[dict[str, Any]]:
        """The model's inputs for each text, or for each of its pieces where the options ask for several."""
        if not (texts := list(texts)):
            return []
        columns = self.inner(texts, truncation=True, max_length=self.limit, **options)
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def join(self, features: Sequence[Mapping[str, Any]]) -> Any:
        """These inputs together, padded to the longest of them."""
        return self.inner.pad(list(features), return_tensors="pt")


def _positions(model: Any) -> int:
    """How many tokens the model has positions for. RoBERTa and its like begin to count behind the padding's index."""
    known: int = getattr(model.config, "max_position_embeddings", None) or 1 << 20
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return known - int(module.padding_idx) - 1
    return known


def lengths(items: Iterable[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    """How many tokens each of these inputs has."""
    return np.array([len(item["input_ids"]) for item in items], dtype=np.int64)


class Classes:
    """The labels of a classifier, and its logits as the configuration says they are to be read.

    As transformers' own pipelines do: softmax over one label of several, a sigmoid each where several can be right or
    there is but one, and the plain number of a regression.
    """

    def __init__(self, config: Any) -> None:
        count = config.num_labels
        self.names = tuple(str(config.id2label.get(index, index)) for index in range(count))
        self._regression = config.problem_type == "regression"
        self._apart = config.problem_type == "multi_label_classification" or count == 1
        if self._regression:
            self.outputs: tuple[Tensor, ...] = (Tensor("value", "FP32", (-1, count)),)
        else:
            self.outputs = class_outputs(count)

    def read(self, logits: Any) -> Arrays:
        """`label`, `score` and `probabilities` of each row; `value` of a regression."""
        if self._regression:
            return {"value": logits.float().numpy()}
        values = (torch.sigmoid(logits) if self._apart else torch.softmax(logits, dim=-1)).float().numpy()
        return name_classes(values, self.names)


def class_outputs(count: int) -> tuple[Tensor, ...]:
    """What a classifier gives."""
    return (
        Tensor("label", "BYTES", (-1,)),
        Tensor("score", "FP32", (-1,)),
        Tensor("probabilities", "FP32", (-1, count)),
    )


def name_classes(probabilities: np.ndarray[Any, Any], names: Sequence[str]) -> Arrays:
    """The most probable label of each row, with its score, and all the probabilities."""
    best = probabilities.argmax(axis=1)
    return {
        "label": np.array([names[index] for index in best], dtype=object),
        "score": probabilities[np.arange(len(best)), best],
        "probabilities": probabilities,
    }


def text_signature(outputs: tuple[Tensor, ...]) -> Signature:
    """A text a row in, these outputs a row out."""
    return Signature((Tensor("text", "BYTES", (-1,)),), outputs)

"""Text encoders as ONNX graphs: the one that a model's folder holds, or one made of its torch weights; int8 of either.

A graph is made anew at each start (some seconds), out of the verified files alone. Knows tokens and hidden states;
knows nothing of texts, pooling or HTTP.
"""

from __future__ import annotations

import inspect
import logging
import tempfile
import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelyard.errors import MissingExtra

try:
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic
except ImportError as error:
    raise MissingExtra("onnxruntime", "serve") from error

PLACES = ("onnx/model.onnx", "model.onnx")
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OUTPUTS = ("last_hidden_state", "token_embeddings")
_OPSET = 17


class EncoderGraph:
    """Hidden states by ONNX Runtime. May be called by several threads at once."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]
        outputs = [each.name for each in self._session.get_outputs()]
        self._output = next((name for name in _OUTPUTS if name in outputs), outputs[0])

    def hidden_states(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """(1, tokens, width), the sequences one behind the other. Only those of one length are computed at once."""
        parts = []
        for length, group in groupby(sequences, key=len):
            ids = np.array(list(group), dtype=np.int64)
            given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            (hidden,) = self._session.run([self._output], {name: given[name] for name in self._inputs})
            parts.append(hidden.reshape(len(ids) * length, -1))
        return torch.from_numpy(np.concatenate(parts))[None]


def open_graph(folder: Path, encoder: Any, *, int8: bool, threads: int) -> EncoderGraph:
    """The graph of the model in the folder, whose torch module is given."""
    with tempfile.TemporaryDirectory(prefix="modelyard-graph-") as made:
        path = next((folder / place for place in PLACES if (folder / place).is_file()), None)
        if path is None:
            path = Path(made) / "model.onnx"
            export(encoder, path)
        if int8:
            quantized = Path(made) / "int8.onnx"
            _quantize(path, quantized)
            path = quantized
        return EncoderGraph(path, threads)


def export(encoder: Any, path: Path) -> None:
    """Writes the graph of a torch encoder. The encoder's attention is another one afterwards."""
    takes = inspect.signature(encoder.forward).parameters
    names = [name for name in _INPUTS if name in takes]
    example = {"input_ids": torch.ones(2, 8, dtype=torch.long), "attention_mask": torch.ones(2, 8, dtype=torch.long)}
    given = tuple(example.get(name, torch.zeros(2, 8, dtype=torch.long)) for name in names)
    encoder.set_attn_implementation("eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every shape that it takes for fixed
        torch.onnx.export(
            _HiddenStates(encoder, names),
            given,
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=names,
            output_names=[_OUTPUTS[0]],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in (*names, _OUTPUTS[0])},
        )


class _HiddenStates(torch.nn.Module):
    """The encoder with inputs by position, as tracing wants them."""

    def __init__(self, encoder: Any, names: Sequence[str]) -> None:
        super().__init__()
        self._encoder = encoder
        self._names = names

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self._encoder(**dict(zip(self._names, given, strict=True))).last_hidden_state
        return states


def _quantize(path: Path, quantized: Path) -> None:
    """Weights of matrix products in int8, a scale for each column; activations are quantized as they come."""
    # 7 bits: without VNNI the processor adds pairs of 8-bit products in 16 bits, which would overflow.
    logging.getLogger().addFilter(_no_advice)
    try:
        quantize_dynamic(
            path,
            quantized,
            op_types_to_quantize=["MatMul", "Gemm"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
    finally:
        logging.getLogger().removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()

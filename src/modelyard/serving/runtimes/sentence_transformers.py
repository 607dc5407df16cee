"""Sentence-transformers models: texts to vectors, from local files only.

Computes what `SentenceTransformer.encode` computes with its default prompt, and counts the tokens on the way. Models
whose encoder gives the same vectors without padding are computed so, row by row with rows of other requests; the rest
go through the library as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import InvalidInput, MissingExtra
from modelyard.repository.manifest import ModelVersion, Signature, Tensor
from modelyard.serving.cores import shared_cores, usable_cores
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes import Row
from modelyard.serving.runtimes.precision import declared_backend, declared_precision
from modelyard.serving.runtimes.rows import infer_rows, nothing

try:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging
except ImportError as error:
    raise MissingExtra("sentence-transformers", "serve") from error

from modelyard.serving.runtimes import packed
from modelyard.serving.runtimes.torch_threads import use_threads

if TYPE_CHECKING:
    from modelyard.serving.runtimes.encoder_graph import EncoderGraph

_LOG = logging.getLogger(__name__)

# What the library and the packed way must agree on: length, case, space, other scripts, two of one length.
_PROBES: Arrays = {
    "text": np.array(["a", "The Quick brown fox", "  spaces\n and lines ", "Grüße 你好 ñandú", "b"], dtype=object)
}
_LONG = "a long one " * 5000  # beyond what most models take: only tokenized
_LEAST_COSINE = {"fp32": 0.99999, "int8": 0.9}
_WITHOUT = "register a version without serving.precision and serving.backend"


class SentenceTransformersRuntime:
    """Any such model, by the library's own steps."""

    platform = "pytorch_sentence-transformers"

    def __init__(self, model: Any) -> None:
        self.model = model
        self.prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        dimension = model.get_embedding_dimension()
        self.signature = Signature(
            (Tensor("text", "BYTES", (-1,)),),
            (Tensor("embedding", "FP32", (-1, -1 if dimension is None else dimension)),),
        )

    def infer(self, inputs: Arrays) -> Arrays:
        if not len(inputs["text"]):
            return nothing(self.signature)
        use_threads(usable_cores())
        with torch.inference_mode():
            features = self.model.preprocess(list(inputs["text"]), prompt=self.prompt)
            tokens = features["attention_mask"].sum(dim=1)
            embedding = self.model(features)["sentence_embedding"]
        return self._outputs(embedding, tokens.numpy().astype(np.int64))

    def _outputs(self, embedding: Any, tokens: Any) -> Arrays:
        return {"embedding": embedding[:, : self.model.truncate_dim].float().numpy(), "tokens": tokens}


class Tokens:
    """Texts to token ids by the tokenizer alone. From here on it neither pads nor cuts otherwise."""

    def __init__(self, encoder: Any, prompt: str | None) -> None:
        self._tokenizer = encoder.tokenizer.backend_tokenizer
        self._tokenizer.enable_truncation(encoder.max_seq_length)
        self._tokenizer.no_padding()
        self._prompt = prompt or ""

    def rows(self, texts: Iterable[str]) -> list[Row]:
        encodings = self._tokenizer.encode_batch_fast([self._prompt + text for text in texts])
        return [Row(ids, len(ids)) for ids in (encoding.ids for encoding in encodings)]


class PackedRuntime(SentenceTransformersRuntime):
    """A text encoder and what pools its states, without padding; for models with which that agrees with the library.

    `graph` computes the states in place of the model's own encoder.
    """

    def __init__(self, model: Any, graph: EncoderGraph | None = None) -> None:
        super().__init__(model)
        self._encoder, *self._after = model
        self._first_position = packed.first_position(self._encoder.auto_model)
        self._tokens = Tokens(self._encoder, self.prompt)
        self._graph = graph
        self.workers, self._threads = shared_cores()
        if graph is None:
            self._encoder.auto_model.set_attn_implementation(packed.ATTENTION)
        else:
            self.platform = "onnxruntime_sentence-transformers"

    def prepare(self, inputs: Arrays) -> Sequence[Row]:
        return self._tokens.rows(inputs["text"])

    def infer_rows(self, items: Sequence[Sequence[int]]) -> Arrays:
        order = sorted(range(len(items)), key=lambda n: len(items[n]))
        sequences = [items[n] for n in order]
        use_threads(self._threads)
        with torch.inference_mode():
            features = packed.features(sequences, self._first_position)
            if self._graph is None:
                features = self._encoder(features)
            else:
                features["token_embeddings"] = self._graph.hidden_states(sequences)
            features["token_embeddings"] = features["token_embeddings"].float()  # what pools them is not rounded again
            for module in self._after:
                features = module(features)
            embedding = features["sentence_embedding"][torch.tensor(order).argsort()]
        return self._outputs(embedding, np.array([len(ids) for ids in items], dtype=np.int64))

    def infer(self, inputs: Arrays) -> Arrays:
        return infer_rows(self, inputs)


def load(version: ModelVersion, folder: Path) -> SentenceTransformersRuntime:
    precision, backend = declared_precision(version), declared_backend(version)
    where, in_onnx = f"{version.name}:{version.version}", backend == "onnx" or precision == "int8"
    if in_onnx and (precision == "bf16" or backend == "torch"):
        raise InvalidInput(f"{where} can't be served as {precision} by {backend}", remedy=_WITHOUT)
    model = _open(version, folder)
    plain = SentenceTransformersRuntime(model)
    expected = plain.infer(_PROBES)["embedding"]
    packable = _tokenized_alike(plain)
    if in_onnx:
        if not packable:
            raise InvalidInput(f"{where} is no plain text encoder, which ONNX and int8 need", remedy=_WITHOUT)
        return _with_graph(where, folder, model, expected, int8=precision == "int8")
    runtime = _packed(model, expected) if packable else None
    if precision == "bf16":
        (model[0] if runtime else model).bfloat16()
    return runtime or plain


def _packed(model: Any, expected: Any) -> PackedRuntime | None:
    """None where packed sequences give other vectors than the library does, or can't be computed."""
    encoder = model[0].auto_model
    before = encoder.config._attn_implementation
    try:
        runtime = PackedRuntime(model)
        if _cosine(runtime, expected) >= _LEAST_COSINE["fp32"]:
            return runtime
    # A model's code may be of any kind, and raise anything; the library can compute it all the same.
    except Exception as error:
        _LOG.debug("computed with padding, since without: %s", error)
    encoder.set_attn_implementation(before)
    return None


def _with_graph(where: str, folder: Path, model: Any, expected: Any, *, int8: bool) -> PackedRuntime:
    from modelyard.serving.runtimes.encoder_graph import open_graph

    runtime = PackedRuntime(model, open_graph(folder, model[0].auto_model, int8=int8, threads=shared_cores()[1]))
    model[0].auto_model.to("meta")  # the graph holds weights of its own
    if (found := _cosine(runtime, expected)) < _LEAST_COSINE["int8" if int8 else "fp32"]:
        raise InvalidInput(
            f"the vectors of {where} in ONNX{', int8' * int8}, are not those of its weights (cosine {found:.4f})",
            remedy=_WITHOUT,
        )
    return runtime


def _cosine(runtime: PackedRuntime, expected: Any) -> float:
    """The smallest over the probes."""
    found = runtime.infer(_PROBES)["embedding"]
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / lengths).min())


def _tokenized_alike(plain: SentenceTransformersRuntime) -> bool:
    """Whether the model's own tokenizer, asked directly, gives what the library feeds its encoder."""
    encoder = plain.model[0]
    if not hasattr(encoder, "auto_model") or not getattr(encoder.tokenizer, "is_fast", False):
        return False
    texts = np.array([*_PROBES["text"], _LONG], dtype=object)
    expected = [plain.model.preprocess([text], prompt=plain.prompt)["input_ids"][0].tolist() for text in texts]
    return [row.item for row in Tokens(encoder, plain.prompt).rows(texts)] == expected


def _open(version: ModelVersion, folder: Path) -> Any:
    torch.set_num_threads(usable_cores())
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
    except UnpicklingError as error:  # torch reads pickles of weights alone, and advises to let it read anything
        raise InvalidInput(
            f"{version.name}:{version.version} can't be loaded as a sentence-transformers model: "
            "its pickle holds more than weights",
            remedy="convert it to safetensors",
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InvalidInput(
            f"{version.name}:{version.version} can't be loaded as a sentence-transformers model: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    return model.eval()

"""One embedding model in this process: texts become vectors, and it says which model, version and digest made them.

Knows sentence-transformers; knows nothing of tasks and configuration. Heavy libraries are imported by `load`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from modelyard.errors import InvalidInput, MissingExtra
from modelyard.repository.manifest import ModelVersion
from modelyard.serving.runtimes.precision import declared_backend, declared_precision

if TYPE_CHECKING:
    from typing import Unpack

    import numpy as np
    from numpy.typing import NDArray

FORMAT = "sentence-transformers"

_loading = threading.Lock()


class EncodeOptions(TypedDict, total=False):
    """What `encode` takes; the meanings and defaults are those of `SentenceTransformer.encode`."""

    prompt_name: str | None
    prompt: str | None
    batch_size: int
    show_progress_bar: bool | None
    precision: Literal["float32", "int8", "uint8", "binary", "ubinary"]
    convert_to_numpy: bool
    convert_to_tensor: bool
    normalize_embeddings: bool
    truncate_dim: int | None


class EmbeddingModel:
    """A loaded model. Threads may share it; they take turns, since one call already uses every core."""

    def __init__(self, version: ModelVersion, encoder: Any) -> None:
        self._version = version
        self._encoder = encoder
        self._turn = threading.Lock()
        self.dimension: int = encoder.get_embedding_dimension() or len(encoder.encode("a"))

    @property
    def name(self) -> str:
        """The model's name, such as `all-MiniLM-L6-v2`."""
        return self._version.name

    @property
    def version(self) -> str:
        """The model's version, such as `v1.0.0`."""
        return str(self._version.version)

    @property
    def digest(self) -> str:
        """The digest of the model's files, `sha256:…`."""
        return str(self._version.digest)

    @property
    def stamp(self) -> str:
        """`name:version@sha256:…`: keep it with each vector, since vectors of two models can't be compared."""
        return str(self._version.ref)

    @property
    def prompts(self) -> frozenset[str]:
        """The names that `prompt_name` takes; models for retrieval have `query` and `document`."""
        return frozenset(self._encoder.prompts)

    def __repr__(self) -> str:
        return f"EmbeddingModel({self.stamp!r})"

    def encode(self, sentences: str | Sequence[str], **options: Unpack[EncodeOptions]) -> NDArray[np.float32]:
        """Vectors of shape (dimension,) for one text, (texts, dimension) for several, float32.

        The options are those of sentence-transformers; `convert_to_tensor`, `convert_to_numpy=False` and a `precision`
        other than float32 give what they give there. Raises InvalidInput for what is no text or no such option.
        """
        import numpy as np

        if wrong := options.keys() - EncodeOptions.__annotations__:
            raise TypeError(f"encode() got an unexpected keyword argument {min(wrong)!r}")
        one = isinstance(sentences, str)
        texts = [sentences] if one else list(sentences)
        if strange := [text for text in texts if not isinstance(text, str)]:
            raise InvalidInput(f"{strange[0]!r} is no text to embed", remedy="give a text or a list of texts")
        plain = not options.get("convert_to_tensor") and options.get("convert_to_numpy", True)
        exact = options.get("precision", "float32") == "float32"
        if plain and not texts:
            return np.zeros((0, options.get("truncate_dim") or self.dimension), np.float32)
        found = self._encode(sentences if one else texts, {"show_progress_bar": False, **options})
        return np.asarray(found, dtype=np.float32) if plain and exact else found

    def _encode(self, texts: Any, options: dict[str, Any]) -> Any:
        try:
            with self._turn:  # a tokenizer can't be used by two threads at once
                return self._encoder.encode(texts, **options)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"{self.name}:{self.version} can't embed this: {_first_line(error)}") from error


class _AsServed:
    """A version whose metadata say what it is computed in, computed as the model server does."""

    prompts: Mapping[str, str] = {}
    _TAKEN = frozenset({"batch_size", "show_progress_bar", "normalize_embeddings"})

    def __init__(self, version: ModelVersion, folder: Path) -> None:
        from modelyard.serving import runtimes

        self._runtime = runtimes.load(version, folder)

    def get_embedding_dimension(self) -> int:
        (embedding,) = self._runtime.signature.outputs
        return embedding.shape[-1]

    def encode(self, sentences: str | list[str], **options: Any) -> NDArray[np.float32]:
        """Raises ValueError for an option that the model server does not have."""
        import numpy as np

        if wrong := {key for key, value in options.items() if value is not None} - self._TAKEN:
            raise ValueError(f"with serving.precision or serving.backend there is no {min(wrong)}")
        one = isinstance(sentences, str)
        texts = np.array([sentences] if one else sentences, dtype=object)
        vectors = np.asarray(self._runtime.infer({"text": texts})["embedding"], dtype=np.float32)
        if options.get("normalize_embeddings"):
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        found: NDArray[np.float32] = vectors[0] if one else vectors
        return found


def load(version: ModelVersion, folder: Path, *, device: str | None = None) -> EmbeddingModel:
    """The model in a folder of verified files, on a device of torch; None: the fastest there is.

    Nothing is fetched from elsewhere and no code that came with the model is run. Raises InvalidInput, MissingExtra.
    """
    with _loading:  # the libraries have switches for the whole process, and two loads at once are no faster
        return _load(version, folder, device)


def _load(version: ModelVersion, folder: Path, device: str | None) -> EmbeddingModel:
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtra(FORMAT, "serve") from error
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        if declared_precision(version) != "fp32" or declared_backend(version) == "onnx":
            return EmbeddingModel(version, _AsServed(version, folder))
        encoder = SentenceTransformer(str(folder), device=device, local_files_only=True, trust_remote_code=False)
        return EmbeddingModel(version, encoder.eval())
    except InvalidInput:
        raise
    except UnpicklingError as error:  # torch reads pickles of weights alone, and advises to let it read anything
        raise InvalidInput(
            f"{version.name}:{version.version} can't be loaded: its pickle holds more than weights",
            remedy="convert it to safetensors",
        ) from error
    except Exception as error:  # loaders of many libraries raise many things
        raise InvalidInput(f"{version.name}:{version.version} can't be loaded: {_first_line(error)}") from error
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

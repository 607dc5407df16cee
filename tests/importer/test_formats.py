"""Honest models of every format are described rightly; what they do not say stays unknown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from modelyard.importer.inspect import inspect
from modelyard.repository.manifest import Inspection, ModelInfo, Signature, Tensor

from . import builders


def torchscript(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), str(path))
    return path


def test_a_real_sentence_transformers_model() -> None:
    assert inspect(builders.minilm()) == Inspection(
        ModelInfo(
            task="sentence-similarity",
            format="sentence-transformers",
            framework="pytorch",
            architecture="BertModel",
            parameters=22_713_728,
            dtype="float32",
            vocabulary=30522,
            context_length=256,
            embedding_dimension=384,
            languages=("en",),
            license="apache-2.0",
        )
    )


def test_a_real_gguf_file_on_its_own() -> None:
    assert inspect(builders.smollm()) == Inspection(
        ModelInfo(
            task="text-generation",
            format="gguf",
            framework="ggml",
            architecture="llama",
            parameters=134_515_008,
            vocabulary=49152,
            context_length=8192,
            languages=("en",),
            license="apache-2.0",
            quantization="Q4_1",
        ),
        notes={builders.smollm().name: "holds a chat template (Jinja), which the engine renders with each request"},
    )


def sentence_transformers(pooling: dict[str, object], kind: str | None = None) -> dict[str, str]:
    return {
        "modules.json": json.dumps(
            [
                {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
        ),
        "0_Transformer/config.json": json.dumps({"model_type": "bert", "max_position_embeddings": 512}),
        "0_Transformer/tokenizer_config.json": json.dumps({"model_max_length": 128}),
        "1_Pooling/config.json": json.dumps(pooling),
        **({"config_sentence_transformers.json": json.dumps({"model_type": kind})} if kind else {}),
    }


@pytest.mark.parametrize(
    ("pooling", "dimension"),
    [
        ({"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}, 8),
        ({"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, 16),
        ({"embedding_dimension": 8, "pooling_mode": "mean"}, 8),
        ({"embedding_dimension": 8, "pooling_mode": ["mean", "max", "cls"]}, 24),
        ({"embedding_dimension": 8}, None),
    ],
)
def test_embedding_dimensions(tmp_path: Path, pooling: dict[str, object], dimension: int | None) -> None:
    model = inspect(builders.folder(tmp_path, sentence_transformers(pooling))).model
    assert (model.embedding_dimension, model.task, model.context_length) == (dimension, "feature-extraction", 128)


def test_a_cross_encoder_is_no_embedding_model(tmp_path: Path) -> None:
    files = sentence_transformers({}, kind="CrossEncoder")
    assert inspect(builders.folder(tmp_path, files)).model.task == "text-ranking"


def test_a_dense_module_sets_the_dimension_and_adds_its_weights(tmp_path: Path) -> None:
    files = sentence_transformers({"embedding_dimension": 8, "pooling_mode": "mean"})
    modules = json.loads(files["modules.json"])
    modules.append({"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    files |= {"modules.json": json.dumps(modules), "2_Dense/config.json": json.dumps({"out_features": 4})}
    builders.folder(tmp_path, files)
    for module in ("0_Transformer", "2_Dense"):
        save_file({"w": np.zeros((2, 3), np.float16)}, tmp_path / module / "model.safetensors")
    model = inspect(tmp_path).model
    assert (model.embedding_dimension, model.parameters, model.dtype) == (4, 12, "float16")


def test_a_saved_llama(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text(
        "---\nlanguage:\n- no\n- de\nlicense: other\nlicense_name: llama3\n---\nA model"
    )
    assert inspect(tmp_path) == Inspection(
        ModelInfo(
            task="text-generation",
            format="transformers",
            framework="pytorch",
            architecture="LlamaForCausalLM",
            parameters=sum(p.numel() for p in model.parameters()),
            dtype="float32",
            vocabulary=32,
            context_length=64,
            languages=("no", "de"),
            license="llama3",
        )
    )


def test_a_saved_bert_in_shards(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=32, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = BertForSequenceClassification(config)
    model.bfloat16()
    model.save_pretrained(tmp_path, max_shard_size="1KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    found = inspect(tmp_path).model
    assert (found.task, found.dtype, found.context_length) == ("text-classification", "bfloat16", 512)
    assert found.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["BertForTokenClassification"]}, "token-classification"),
        ({"architectures": ["ViTForImageClassification"]}, "image-classification"),
        ({"architectures": ["BertForMaskedLM"]}, "fill-mask"),
        ({"architectures": ["GPT2LMHeadModel"]}, "text-generation"),
        ({"architectures": ["BertModel"], "hidden_size": 8}, "feature-extraction"),
        ({"architectures": ["ViTModel"], "image_size": 224}, "image-feature-extraction"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}, "text-classification"),
        (
            {
                "architectures": ["BertForSequenceClassification"],
                "id2label": {"0": "LABEL_0"},
                "sentence_transformers": {"version": "5.1.0"},
            },
            "text-ranking",
        ),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "text2text-generation"),
        (
            {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"},
            "automatic-speech-recognition",
        ),
        ({"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}, "image-text-to-text"),
        ({"architectures": ["SomethingForNobody"]}, None),
        ({"model_type": "bert"}, None),
    ],
)
def test_tasks(tmp_path: Path, config: dict[str, object], task: str | None) -> None:
    builders.folder(tmp_path, {"config.json": json.dumps(config)})
    found = inspect(tmp_path).model
    assert (found.format, found.task) == ("transformers", task)


def test_quantized_weights_are_not_counted(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "gptq", "bits": 4}}
    builders.folder(tmp_path, {"config.json": json.dumps(config)})
    save_file({"packed": np.zeros(4, np.int32)}, tmp_path / "model.safetensors")
    found = inspect(tmp_path).model
    assert (found.parameters, found.quantization) == (None, "gptq")


def test_bare_safetensors(tmp_path: Path) -> None:
    weights: dict[str, np.ndarray[Any, Any]] = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(2, np.int64)}
    weights["none"] = np.zeros((0, 5), np.float32)
    save_file(weights, tmp_path / "weights.safetensors", metadata={"format": "pt"})
    assert inspect(tmp_path) == Inspection(
        ModelInfo(format="safetensors", framework="pytorch", parameters=14, dtype="float32")
    )


def onnx_model() -> onnx.ModelProto:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], [0.0] * 8)
    floats, labels = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("ArgMax", ["y"], ["label"], axis=1)],
        "classifier",
        [
            helper.make_tensor_value_info("x", floats, ["batch", 4]),
            helper.make_tensor_value_info("w", floats, [4, 2]),
        ],
        [
            helper.make_tensor_value_info("y", floats, [None, 2]),
            helper.make_tensor_value_info("label", labels, ["batch", 1]),
        ],
        [weights],
    )
    return helper.make_model(graph)


def test_onnx_with_its_signature(tmp_path: Path) -> None:
    onnx.save(onnx_model(), tmp_path / "classifier.onnx")
    assert inspect(tmp_path) == Inspection(
        ModelInfo(
            format="onnx",
            framework="onnx",
            parameters=8,
            dtype="float32",
            signature=Signature(
                (Tensor("x", "FP32", (-1, 4)),), (Tensor("y", "FP32", (-1, 2)), Tensor("label", "INT64", (-1, 1)))
            ),
        )
    )


def test_onnx_with_external_weights_and_a_config(tmp_path: Path) -> None:
    onnx.save(onnx_model(), tmp_path / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"]}))
    found = inspect(tmp_path).model
    assert (found.format, found.task, found.parameters) == ("onnx", "text-classification", 8)


def test_an_onnx_output_without_words_for_it_leaves_the_signature_unknown(tmp_path: Path) -> None:
    model = onnx_model()
    model.graph.output.append(helper.make_tensor_value_info("odd", TensorProto.COMPLEX64, [1]))
    onnx.save(model, tmp_path / "model.onnx")
    assert inspect(tmp_path).model.signature is None


def test_torchscript(tmp_path: Path) -> None:
    torchscript(tmp_path / "model.pt")
    assert inspect(tmp_path) == Inspection(ModelInfo(format="torchscript", framework="pytorch"))


@pytest.mark.parametrize(
    ("keys", "task"),
    [
        ({"general.architecture": "bert", "bert.embedding_length": 384}, "feature-extraction"),
        (
            {"general.architecture": "qwen3", "qwen3.pooling_type": 3, "qwen3.embedding_length": 384},
            "feature-extraction",
        ),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 4}, "text-ranking"),
        ({"general.architecture": "qwen3"}, "text-generation"),
        ({}, None),
    ],
)
def test_gguf_tasks(tmp_path: Path, keys: dict[str, object], task: str | None) -> None:
    (tmp_path / "m.gguf").write_bytes(builders.gguf(keys))
    found = inspect(tmp_path).model
    assert (found.format, found.task) == ("gguf", task)
    assert found.embedding_dimension == (384 if task == "feature-extraction" else None)


def test_gguf_in_parts_counts_them_all(tmp_path: Path) -> None:
    keys = {"general.architecture": "llama", "general.file_type": 0, "general.languages": ["en", "fr"]}
    for number in (1, 2):
        data = builders.gguf(keys, {"w": (8, 4)}, data=128)
        (tmp_path / f"m-{number:05}-of-00002.gguf").write_bytes(data)
    found = inspect(tmp_path).model
    assert (found.parameters, found.dtype, found.quantization) == (64, "float32", None)
    assert found.languages == ("en", "fr")


@pytest.mark.parametrize(
    "files",
    [
        {"notes.txt": "hello"},
        {"config.json": "{}"},
        {"config.json": '{"architecture": "resnet18"}'},
        {"modules.json": '[{"path": "", "type": "other.Thing"}]'},
        {"README.md": "---\nlicense: [unclosed\n---\n"},
    ],
)
def test_an_unknown_folder_is_described_as_nothing(tmp_path: Path, files: dict[str, str]) -> None:
    assert inspect(builders.folder(tmp_path, files)) == Inspection()


def test_describing_loads_no_heavy_library(tmp_path: Path) -> None:
    torchscript(builders.folder(tmp_path / "script", {"README.md": "x"}) / "model.pt")
    onnx.save(onnx_model(), builders.folder(tmp_path / "onnx", {"README.md": "x"}) / "model.onnx")
    save_file({"a": np.zeros(2, np.float32)}, builders.folder(tmp_path / "st", {"README.md": "x"}) / "m.safetensors")
    folders = [tmp_path / "script", tmp_path / "onnx", tmp_path / "st", builders.smollm(), builders.minilm()]
    program = """
import sys
from pathlib import Path
from typing import Any
from modelyard.importer.inspect import inspect
print([inspect(Path(folder)).model.format for folder in sys.argv[1:]])
print(sorted({"torch", "onnx", "transformers", "numpy", "sentence_transformers", "onnxruntime"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(os.fspath, folders)], capture_output=True, text=True, check=True
    )
    formats, loaded = done.stdout.splitlines()
    assert formats == str(["torchscript", "onnx", "safetensors", "gguf", "sentence-transformers"])
    assert loaded == "[]"


HANDLER = "class Handler:\n    def setup(self, folder): ...\n    def predict(self, inputs): ...\n"


def test_a_handler_of_our_kind_makes_a_folder_custom(tmp_path: Path) -> None:
    files = {
        "handler.py": HANDLER,
        "config.json": '{"architectures": ["BertModel"]}',
        "README.md": "---\npipeline_tag: text-ranking\n---\n",
    }
    found = inspect(builders.folder(tmp_path, files))
    assert found.model == ModelInfo(format="custom", task="text-ranking")
    assert found.notes["handler.py"].startswith("Python code, which runs when the model is served")


@pytest.mark.parametrize(
    "source",
    [
        "class EndpointHandler:\n    def __call__(self, data): ...\n",
        "print 'two'",
        "\0",
        "x = " + "(" * 10_000,
        "x = '\\d'",
    ],
)
def test_other_handlers_are_notes_beside_the_model(tmp_path: Path, source: str) -> None:
    found = inspect(builders.folder(tmp_path, {"handler.py": source, "config.json": '{"model_type": "bert"}'}))
    assert found.model.format == "transformers"
    assert "trust_remote_code" in found.notes["handler.py"]

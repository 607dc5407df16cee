"""TorchScript models: any graph that torch.jit saved, on the CPU.

The signature comes from what was registered with the model, since the file itself does not hold one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.errors import InvalidInput, MissingExtra
from modelyard.repository.manifest import ModelVersion, Signature, declared_signature
from modelyard.serving.cores import usable_cores
from modelyard.serving.protocol import Arrays, ModelFailed
from modelyard.serving.runtimes import only_file

try:
    import torch
except ImportError as error:
    raise MissingExtra("torch", "serve") from error

from modelyard.serving.runtimes.torch_threads import use_threads


class TorchScriptRuntime:
    platform = "pytorch_torchscript"

    def __init__(self, module: Any, signature: Signature) -> None:
        self._module = module
        self.signature = signature

    def infer(self, inputs: Arrays) -> Arrays:
        names = [tensor.name for tensor in self.signature.inputs] or list(inputs)
        use_threads(usable_cores())
        with torch.inference_mode():
            answer = self._module(*(_tensor(name, inputs[name]) for name in names))
        return name_outputs(answer, [tensor.name for tensor in self.signature.outputs])


def load(version: ModelVersion, folder: Path) -> TorchScriptRuntime:
    jit: Any = torch.jit  # It has no types.
    torch.set_num_threads(usable_cores())
    path = only_file(folder, (".pt", ".pth", ".ts", ".torchscript"))
    with warnings.catch_warnings():
        # TorchScript files stay valid though torch advises other formats for new ones.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.load.*is deprecated", category=DeprecationWarning)
        try:
            module = jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            raise InvalidInput(
                f"{path.name} of {version.name}:{version.version} is not a TorchScript model: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
    signature = declared_signature(version.metadata) or version.model.signature or Signature()
    return TorchScriptRuntime(module.eval(), signature)


def name_outputs(answer: Any, names: Sequence[str]) -> Arrays:
    """A tensor, a tuple or list of them, or a dict, under the signature's names (or output_0, output_1, …)."""
    if isinstance(answer, Mapping):
        missing = [name for name in names if name not in answer]
        if missing:
            raise ModelFailed(f"the model gave no output {missing[0]!r}, which its signature names")
        return {str(name): _array(answer[name]) for name in (names or answer)}
    values = list(answer) if isinstance(answer, (tuple, list)) else [answer]
    if names and len(values) != len(names):
        raise ModelFailed(f"the model gave {len(values)} outputs; its signature names {len(names)}")
    return {
        name: _array(v) for name, v in zip(names or [f"output_{n}" for n in range(len(values))], values, strict=True)
    }


def _tensor(name: str, array: Any) -> Any:
    if array.dtype == object:
        raise InvalidInput(f"input {name!r} is BYTES, which a TorchScript model can't take")
    return torch.from_numpy(array)


def _array(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        raise ModelFailed(f"the model gave a {type(value).__name__} where a tensor was expected")
    tensor = value.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()

"""Custom handlers: a class in the model's own handler.py. Whether its code may run was decided before (trust.py).

class Handler:
    def setup(self, folder: Path) -> None: ...
    def preprocess(self, inputs: dict[str, np.ndarray]) -> Any: ...    # may be left out
    def predict(self, prepared: Any) -> Any: ...
    def postprocess(self, predicted: Any) -> dict[str, np.ndarray]: ...    # may be left out
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.engines.samples import IMAGE
from modelyard.errors import InvalidInput
from modelyard.importer.inspect.custom import FILE, handlers
from modelyard.repository.manifest import ModelVersion, Signature, declared_signature
from modelyard.serving.protocol import Arrays, ModelFailed, decoded


class CustomRuntime:
    """The signature is the one in the metadata; requests are joined where it says that rows are.

    The files of an input called `image` come as they were sent; all other BYTES as `str`.
    """

    platform = "modelyard_custom"
    takes_bytes = True

    def __init__(self, handler: Any, signature: Signature) -> None:
        self._handler = handler
        self.signature = signature

    def infer(self, inputs: Arrays) -> Arrays:
        prepare = getattr(self._handler, "preprocess", None)
        finish = getattr(self._handler, "postprocess", None)
        inputs = {name: array if name == IMAGE else decoded(name, array) for name, array in inputs.items()}
        predicted = self._handler.predict(prepare(inputs) if prepare else inputs)
        return self._arrays(finish(predicted) if finish else predicted)

    def _arrays(self, outputs: Any) -> Arrays:
        if not isinstance(outputs, Mapping):
            raise ModelFailed(f"the handler gave a {type(outputs).__name__} where a dict of arrays was expected")
        missing = [tensor.name for tensor in self.signature.outputs if tensor.name not in outputs]
        if missing:
            raise ModelFailed(f"the handler gave no output {missing[0]!r}, which its signature names")
        return {str(name): np.asarray(value) for name, value in outputs.items()}


def load(version: ModelVersion, folder: Path) -> CustomRuntime:
    name = f"{version.name}:{version.version}"
    found = handlers((folder / FILE).read_bytes())
    if len(found) != 1:
        raise InvalidInput(
            f"{FILE} of {name} has {len(found)} classes with setup and predict", remedy="leave one of them in it"
        )
    try:
        handler = getattr(_module(version, folder), found[0])()
        handler.setup(folder)
    # The code is its author's, and may raise anything.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise InvalidInput(f"{FILE} of {name} failed: {type(error).__name__}: {lines[-1]}") from error
    return CustomRuntime(handler, declared_signature(version.metadata) or version.model.signature or Signature())


def _module(version: ModelVersion, folder: Path) -> Any:
    """The file as a package of its own, so that `from . import helpers` finds what lies beside it."""
    name = f"modelyard_handler_{version.digest.hex[:16]}"
    spec = spec_from_file_location(name, folder / FILE, submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(FILE)
    module = sys.modules[name] = module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder holds verified files and no others
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.dont_write_bytecode = writes
    return module

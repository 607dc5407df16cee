"""The shape of the code: imports point inward, files stay short, importing modelyard is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "modelyard"
MODULES = sorted(SOURCE.rglob("*.py"))

# A part may import its own level's own package and everything on the levels before it.
LEVELS = (
    ("errors",),
    ("refs", "wording"),
    ("settings", "defaults"),
    ("store",),
    ("repository", "configuration", "access"),
    ("importer", "pipelines", "datasets", "engines"),
    ("serving",),
    ("embeddings", "selector", "training"),
    ("gateway",),
    ("deployment",),
    ("yard",),
    ("doctor", "hosting"),
    ("api", "console"),
    ("cli",),
    ("__main__",),
)
MODULE_NAME = re.compile(r"modelyard(\.[a-z_]+)+")
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}


def part_of(module: str) -> str:
    return [*module.split("."), ""][1]


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_a_module(value: object) -> bool:
    """Whether a string is a module of ours, to be imported by its name or started with `python -m`."""
    return isinstance(value, str) and MODULE_NAME.fullmatch(value) is not None and part_of(value) in LEVEL


def imported(node: ast.AST) -> Iterator[str]:
    """Every module that a file imports, inside functions or by its name too, but not for types alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from imported(ast.Module(child.orelse, type_ignores=[]))
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            # `from modelyard import defaults` imports modelyard.defaults
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Constant) and names_a_module(child.value):
            yield str(child.value)
        yield from imported(child)


def test_every_way_to_import_is_seen() -> None:
    code = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from modelyard.cli import types
else:
    import modelyard.store.cache
def later():
    from modelyard import refs
    with open("modelyard.toml"):
        import_module("modelyard.yard")
"""
    seen = {name for name in imported(ast.parse(code)) if name.startswith("modelyard")}
    assert seen == {"modelyard.store.cache", "modelyard.refs", "modelyard.yard"}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_inward(path: Path) -> None:
    importer = part_of(module_name(path))
    used = {name for name in imported(ast.parse(path.read_text())) if name.split(".")[0] == "modelyard"}
    for name in used:
        part = part_of(name)
        # The public names are loaded when used; the defaults are the one place that reaches outward.
        if importer in ("", "defaults") or part in ("", "__version__", importer):
            continue
        assert part in LEVEL, f"{module_name(path)} imports {name}, which has no place among the parts"
        assert LEVEL[part] < LEVEL[importer], f"{module_name(path)} imports {name}, which lies further out"


def test_every_part_has_its_place() -> None:
    parts = {part_of(module_name(path)) for path in MODULES} - {""}
    assert parts <= LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_importing_modelyard_is_light() -> None:
    heavy = ("torch", "boto3", "fastapi", "starlette", "numpy", "obstore", "onnxruntime", "transformers")
    code = f"import sys, modelyard; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

"""What the documents say is there is there: files, names in the code, links, commands, settings.

The code is read, not imported, so this knows every name without loading a library.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from modelyard.cli.app import app
from modelyard.deployment.suite import Golden, Metric, read_suite
from modelyard.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "modelyard"
ABOUT_CODE = ("docs/architecture.md", "CONTRIBUTING.md")
FOLDERS = ("docs", "examples", "benchmarks", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.M)
_HEREDOC = re.compile(r"^(.*)<<-?'?(\w+)'?(.*)\n(?:.*\n)*?\2$", re.M)
_FILE = re.compile(r"[\w.-]+(/[\w.-]+)*(\.(py|md|txt)|/)|(src|tests|docs|examples|benchmarks|\.ci)/[\w./-]+")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(\(\))?")
_BARE = re.compile(r"[a-z_]\w*\(\)|[A-Z]\w*[a-z]\w*|_?[A-Z][A-Z_]{2,}")
_DATA = (".json", ".toml", ".yaml", ".log", ".lock", ".address")  # files that the code writes or users do
_VARIABLE = re.compile(r"MODELYARD_[A-Z0-9_]+")
_SEPARATORS = {"&", "&&", "|", "||", ";", ">", "2>", "<"}


@pytest.mark.parametrize("page", ABOUT_CODE)
def test_files_and_names_exist(page: str) -> None:
    assert list(_wrong_names((ROOT / page).read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "`store/nothing.py`",
        "`src/modelyard/nowhere/`",
        "`Journal.forget`",
        "`store.journal.Diary`",
        "`Diary`",
        "`forget_everything()`",
        "`gateway.colour`",
        "`MODELYARD_COLOUR`",
        "`NO_SUCH_CONSTANT`",
        "`make coffee`",
    ],
)
def test_a_name_that_does_not_exist_is_found(text: str) -> None:
    assert list(_wrong_names(text)) == [text.strip("`")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(_broken_links(page)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# One thing: and `another`\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md#one-thing-and-another) [b](there.md#two) [c](gone.md) [d](https://example.com/x)")
    assert list(_broken_links(page)) == ["there.md#two", "gone.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_understood(page: Path) -> None:
    for command in _commands(page.read_text()):
        _parse(command)


def test_the_quickstart_shows_the_way_of_a_model() -> None:
    way = ["init", "register", "up", "stage", "validate", "promote", "rollback"]
    verbs = dict.fromkeys(command[0] for command in _commands((ROOT / "docs/quickstart.md").read_text()))
    assert [verb for verb in verbs if verb in way] == way


def test_the_suite_that_is_shown_can_be_read(tmp_path: Path) -> None:
    (shown,) = (
        text for language, text in _FENCE.findall((ROOT / "docs/validation.md").read_text()) if language == "yaml"
    )
    path = tmp_path / "suite.yaml"
    path.write_text(shown)
    suite = read_suite(path)
    assert suite.golden and suite.metric and suite.latency
    assert set(shown.split()) >= {f"{name}:" for part in (Golden, Metric) for name in part.model_fields}


def test_the_handler_that_is_shown_is_the_one_of_the_example() -> None:
    shown = next(t for language, t in _FENCE.findall((ROOT / "docs/runtimes.md").read_text()) if language == "python")
    source = ast.parse((ROOT / "examples/handler/handler.py").read_text())
    trees = [[node for node in tree.body if isinstance(node, ast.ClassDef)] for tree in (ast.parse(shown), source)]
    assert _without_types(trees[0][0]) == _without_types(trees[1][0])


@pytest.mark.parametrize("line", ["stag a:v1.0.0", "stage", "promote a:v1.0.0 --suit x.yaml", "config put a b c"])
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    (command,) = _commands(f"```sh\nmodelyard {line} | head\n```\n")
    assert command == line.split()
    with pytest.raises(typer.TyperException):
        _parse(command)


def test_the_page_of_settings_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "docs" / "settings_page.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "settings.md").read_text() == module.page(), "run `make docs`"


def _without_types(tree: ast.ClassDef) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    return ast.dump(tree)


def _wrong_names(text: str) -> Iterator[str]:
    for code in _CODE.findall(_FENCE.sub("", text)):
        if not _is_right(code):
            yield code


def _is_right(code: str) -> bool:
    """Whether a piece of inline code names what exists. What looks like no name of ours is taken as it is."""
    if code.startswith("make "):
        return re.search(rf"^{re.escape(code[5:])}:", (ROOT / "Makefile").read_text(), re.M) is not None
    if code.startswith("modelyard "):
        return code.split()[1] in _root_command().commands
    if _FILE.fullmatch(code):
        return any((base / code).exists() for base in (ROOT, SOURCE))
    if _VARIABLE.fullmatch(code):
        return code in _variables()
    if _BARE.fullmatch(code) or (_DOTTED.fullmatch(code) and not code.endswith(_DATA)):
        return code.removesuffix("()") in _names()
    return True


@cache
def _names() -> frozenset[str]:
    """Every way to write a name: `store.journal.Journal.update`, `Journal.update`, `Journal`; `gateway.port`."""
    names = {key.lower().replace("__", ".") for key in (v.removeprefix("MODELYARD_") for v in _variables())}
    for path in SOURCE.rglob("*.py"):
        module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__").split(".")
        heads = [".".join(module[start:]) for start in range(len(module))]
        own = set(_defined(ast.parse(path.read_text()).body))
        names |= own | {f"{head}.{name}" for head in heads for name in own} | set(heads)
    return frozenset(names)


def _defined(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in body:
        match node:
            case ast.ClassDef():
                yield prefix + node.name
                yield from _defined(node.body, f"{prefix}{node.name}.")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield prefix + node.name
                if prefix:
                    yield node.name  # a method may be written `update()` where its class is clear
                    yield from (prefix + name for name in _own_attributes(node))
            case ast.Assign():
                yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name


def _own_attributes(method: ast.AST) -> Iterator[str]:
    for node in ast.walk(method):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


@cache
def _variables() -> frozenset[str]:
    def walk(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            yield f"{prefix}{name.upper()}"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from walk(field.annotation, f"{prefix}{name.upper()}__")

    return frozenset(walk(Settings, "MODELYARD_"))


def _broken_links(page: Path) -> Iterator[str]:
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            yield link


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them: lower case, words and hyphens only."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `modelyard …` in the shell blocks, up to a pipe or the like."""
    for language, block in _FENCE.findall(text):
        if language not in ("sh", "bash", "console"):
            continue
        for line in _HEREDOC.sub(r"\1\3", block).replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0] == "modelyard":
                end = next((n for n, word in enumerate(words) if word in _SEPARATORS), len(words))
                yield words[1:end]


@cache
def _root_command() -> Any:
    return typer.main.get_command(app)


def _parse(arguments: list[str]) -> None:
    """What the command line itself does before it runs a command. Raises TyperException."""
    command, parent, rest = _root_command(), None, arguments
    while True:
        context = command.make_context(rest[0] if parent else "modelyard", list(rest[bool(parent) :]), parent=parent)
        if not hasattr(command, "commands"):
            return
        rest, parent = [*context._protected_args, *context.args], context
        _, command, _ = command.resolve_command(context, rest)

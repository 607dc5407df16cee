"""The page of commands, made from the application of modelyard.cli.app: every command, argument and option."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from modelyard.cli.app import app

_HEAD = """\
# Commands

<!-- Written by docs/generate.py. Change the commands in src/modelyard/cli/ instead. -->

A command ends with 0 when it is done, with 1 after one line on stderr that says what is wrong and what to do, and with
2 when it was written wrongly. `REF` says which version of a model is meant: `name:v1.2.0`, or `name:tag`, whatever the
tag means now; where a command takes a `name` alone, that is the latest release. `--store URL` may stand anywhere on the
line; without it the store is `MODELYARD_STORE`, else the nearest `.modelyard` upward from the current folder, else the
one in the home folder.
"""


def page() -> str:
    """docs/reference/commands.md."""
    root: Any = typer.main.get_command(app)
    context = typer.Context(root, info_name="modelyard")
    return _HEAD + "".join(_section(command, each) for command, each in _leaves(root, context))


def _leaves(command: Any, context: typer.Context) -> Iterator[tuple[Any, typer.Context]]:
    """The commands that do something, with their contexts, in the order of the help."""
    if not hasattr(command, "commands"):
        yield command, context
        return
    for name, inner in command.commands.items():
        yield from _leaves(inner, typer.Context(inner, info_name=name, parent=context))


def _section(command: Any, context: typer.Context) -> str:
    pieces = [piece.replace("{", "").replace("}", "") for piece in command.collect_usage_pieces(context)]
    rows = [_row(parameter, context) for parameter in command.params if not getattr(parameter, "hidden", False)]
    table = "\n| | |\n| --- | --- |\n" + "\n".join(rows) + "\n" if rows else ""
    return (
        f"\n## {context.command_path}\n\n{command.help}\n\n"
        f"```text\n{' '.join([context.command_path, *pieces])}\n```\n{table}"
    )


def _row(parameter: Any, context: typer.Context) -> str:
    """A parameter in the words of its help. Raises TypeError for one that has none."""
    name, meaning = parameter.get_help_record(context)
    if parameter.param_type_name == "argument":
        name = name.partition(" <")[0]  # what type it is read as says nothing to a person
    meaning = meaning.replace("[required]", "").strip()
    return f"| `{name}` | {meaning} |"

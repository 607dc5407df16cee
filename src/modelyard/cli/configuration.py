"""Commands of the central configuration: config get, set, history."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from modelyard.cli.context import Json, Reason, parse_value, print_json, print_table, yard_of

Section = Annotated[str, typer.Argument(metavar="SECTION", help="Lower-case letters, digits and '-'.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="Any text.")]

config = typer.Typer(help="The central configuration.", rich_markup_mode=None)


def add_to(app: typer.Typer) -> None:
    app.add_typer(config, name="config")


@config.command("get")
def get(
    context: typer.Context,
    section: Section,
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="One key; else the whole section.")] = None,
    as_json: Json = False,
) -> None:
    """Print a value, or a whole section."""
    manager = yard_of(context).configuration
    found = manager.get_config(section, key) if key else manager.get_section(section)
    if isinstance(found, str) and not as_json:
        print(found)
    else:
        print_json(found)


@config.command("set")
def set_(
    context: typer.Context,
    section: Section,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="JSON, or text.")],
    reason: Reason = "",
) -> None:
    """Set a value."""
    yard_of(context).configuration.set_config(section, key, parse_value(value), reason=reason)


@config.command()
def history(context: typer.Context, section: Section, as_json: Json = False) -> None:
    """Who changed a section, when and why."""
    entries = yard_of(context).configuration.history(section)
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    print_table(("AT", "BY", "WHAT"), [(entry.at[:19], entry.by, entry.why) for entry in entries])

"""Commands of the central configuration: config get, set, unset, undo, history."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.context import Json, Reason, parse_value, print_json, print_table, yard_of

if TYPE_CHECKING:
    from modelyard.configuration import ConfigurationManager

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
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: Json = False,
) -> None:
    """Print a value, or a whole section, as it counts here."""
    manager = yard_of(context).configuration
    if origin:
        _print_origins(manager, section, key, as_json=as_json)
        return
    found = manager.get_config(section, key) if key else _existing(manager, section)
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
    """Set a value. It reaches running processes within two seconds."""
    manager = yard_of(context).configuration
    manager.set_config(section, key, parse_value(value), reason=reason)
    _tell(manager, section, key)


@config.command()
def unset(context: typer.Context, section: Section, key: Key, reason: Reason = "") -> None:
    """Remove a value, so that the default counts again."""
    manager = yard_of(context).configuration
    manager.unset_config(section, key, reason=reason)
    _tell(manager, section, key)


@config.command()
def undo(
    context: typer.Context,
    section: Section,
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="One key; else whatever changed last.")] = None,
    reason: Reason = "",
) -> None:
    """Take the last change back; done again, it brings the change back."""
    for change in yard_of(context).configuration.undo(section, key, reason=reason):
        print(change)


@config.command()
def history(context: typer.Context, section: Section, as_json: Json = False) -> None:
    """Who changed a section, when and why."""
    from modelyard.configuration.changes import changes

    entries = yard_of(context).configuration.history(section)
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    before = [{}, *(entry.state for entry in entries)]
    done = ["; ".join(map(str, changes(old, entry.state))) for old, entry in zip(before, entries, strict=False)]
    rows = [(entry.at[:19], entry.by, entry.why, what) for entry, what in zip(entries, done, strict=True)]
    print_table(("AT", "BY", "WHAT", "CHANGE"), rows)


def _print_origins(manager: ConfigurationManager, section: str, key: str | None, *, as_json: bool) -> None:
    from modelyard.configuration.sections import canonical

    found = manager.effective(section)
    if key:
        manager.get_config(section, key)  # which says what to do when there is none
        found = {name: each for name, each in found.items() if name == canonical(section, key)}
    if as_json:
        print_json({name: asdict(each) for name, each in found.items()})
        return
    rows = [(name, json.dumps(each.value, ensure_ascii=False), each.origin) for name, each in sorted(found.items())]
    print_table(("KEY", "VALUE", "FROM"), rows)


def _existing(manager: ConfigurationManager, section: str) -> dict[str, Any]:
    from modelyard.configuration.sections import SECTIONS
    from modelyard.errors import NotFound

    found = manager.get_section(section)
    if not found and section not in SECTIONS and not manager.history(section):
        raise NotFound(
            f"there is no configuration section {section!r}",
            remedy=f"begin it with `modelyard config set {section} KEY VALUE`",
        )
    return found


def _tell(manager: ConfigurationManager, section: str, key: str) -> None:
    """What counts now; on stderr when that is not what was just done, or a default again."""
    from modelyard.configuration.sections import canonical

    key = canonical(section, key)
    found = manager.effective(section).get(key)
    if found is None:
        print(f"{section}.{key} is not set any more")
        return
    value = json.dumps(found.value, ensure_ascii=False)
    if found.origin == "bucket":
        print(f"{section}.{key} is {value} now")
    else:
        print(f"note: here the {found.origin} says {value}", file=sys.stderr)

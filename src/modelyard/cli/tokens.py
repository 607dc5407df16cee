"""Commands of access: token init, create, ls, revoke, rotate, off."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modelyard.cli.context import Json, Reason, print_json, print_table, yard_of

if TYPE_CHECKING:
    from modelyard.access import TokenRecord

token = typer.Typer(help="Access by token.", rich_markup_mode=None)


def add_to(app: typer.Typer) -> None:
    app.add_typer(token, name="token")


@token.command()
def init(context: typer.Context) -> None:
    """Turn access on: make a signing key on this machine, unless it has one, and publish its public half."""
    access = yard_of(context).access
    key = access.journal.init()
    print(f"access is on; {key.kid} signs, its private half is in {access.keys.name}")
    print("from now on requests need a token: `modelyard token create NAME --role admin` makes one", file=sys.stderr)


@token.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is.")],
    role: Annotated[
        Literal["viewer", "caller", "deployer", "admin"],
        typer.Option(metavar="ROLE", help="viewer, caller, deployer or admin; each may do what those before it may."),
    ] = "caller",
    models: Annotated[str, typer.Option(metavar="NAMES", help="The models, as a,b or team/*; * for all.")] = "*",
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long it is good: 30d, 12h, 15m.")] = "30d",
    as_json: Json = False,
) -> None:
    """Make a token and print it. It is shown this once and kept nowhere."""
    from modelyard.access.roles import parse_patterns
    from modelyard.access.tokens import parse_duration

    patterns, lifetime_s = parse_patterns(models.split(",")), parse_duration(expires)
    made, claims = yard_of(context).access.journal.create(name, role, patterns, lifetime_s)
    if as_json:
        print_json({"token": made, **asdict(claims)})
        return
    print(f"{claims.id}: {role} for {', '.join(patterns)} until {_day(claims.expires)}", file=sys.stderr)
    print(made)


@token.command("ls")
def ls(context: typer.Context, as_json: Json = False) -> None:
    """The tokens that were made and have not expired long ago, and the keys that sign them."""
    state = yard_of(context).access.journal.read()
    if as_json:
        print_json(asdict(state))
        return
    rows = [
        (id_, each.name, each.role, ",".join(each.models), _day(each.expires), _standing(each, each.key in state.keys))
        for id_, each in sorted(state.tokens.items(), key=lambda item: item[1].at)
    ]
    print_table(("ID", "NAME", "ROLE", "MODELS", "EXPIRES", "STATE"), rows)
    print()
    print_table(("KEY", "SINCE", "BY"), [(kid, key.at, key.by) for kid, key in sorted(state.keys.items())])
    if not state.keys:
        print("note: access is off; `modelyard token init` turns it on", file=sys.stderr)


@token.command()
def revoke(
    context: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="A token's id, or a key's: then all that it signed.")],
    reason: Reason = "",
) -> None:
    """Take a token back, within two seconds everywhere."""
    yard_of(context).access.journal.revoke(id_, reason=reason)
    print(f"{id_} is revoked")


@token.command()
def rotate(context: typer.Context) -> None:
    """Sign with a new key from now on. Tokens of earlier keys stay good until they expire or their key is revoked."""
    access = yard_of(context).access
    print(f"{access.journal.rotate().kid} signs now, its private half is in {access.keys.name}")


@token.command()
def off(context: typer.Context, reason: Reason = "") -> None:
    """Turn access off: no key counts any more and no token is needed, on this machine's own address alone."""
    yard_of(context).access.journal.off(reason=reason)
    print("access is off")


def _standing(token: TokenRecord, known: bool) -> str:
    if token.revoked_at:
        return f"revoked {token.revoked_at[:10]}" + (f": {token.reason}" if token.reason else "")
    if not known:
        return "its key does not count"
    return "good" if token.expires > time.time() else "expired"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="minutes").removesuffix("+00:00")

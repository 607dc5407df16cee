"""Commands of deployment: stage, undeploy, status, logs, up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modelyard.cli.context import (
    Json,
    Name,
    Reason,
    Selected,
    log_to_stderr,
    no_version,
    print_json,
    print_table,
    yard_of,
)
from modelyard.errors import NotFound, Refused

if TYPE_CHECKING:
    from modelyard.deployment import Suite
    from modelyard.deployment.status import Status
    from modelyard.deployment.targets.logs import Follower
    from modelyard.repository import Deployment
    from modelyard.yard import Yard

SuiteFile = Annotated[
    Path | None,
    typer.Option("--suite", metavar="FILE", help="A validation suite (YAML); else the one that counts for it."),
]
Replicas = Annotated[
    int | None, typer.Option(metavar="COUNT", min=1, max=64, help="How many replicas; by default as before.")
]
MinReplicas = Annotated[
    int | None,
    typer.Option(metavar="0", min=0, max=0, help="0: on demand, loaded when asked for; --replicas ends that."),
]
_REASON = 60
_FOLLOW_S = 0.3
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the rollout has ended.")]


def add_to(app: typer.Typer) -> None:
    for command in (stage, undeploy, status, logs, up):
        app.command()(command)


def stage(
    context: typer.Context,
    ref: Selected,
    replicas: Replicas = None,
    min_replicas: MinReplicas = None,
    wait: Wait = True,
) -> None:
    """Deploy a version to staging."""
    yard, (name, version) = yard_of(context), named_version(context, ref)
    asked = yard.deployments.deploy_to_staging(name, version, replicas=replicas, min_replicas=min_replicas, wait=False)
    if wait:
        wait_for(yard, name, asked, "staging")
    print(f"{name}:{version} {'serves' if wait else 'is asked for'} in staging")


def undeploy(
    context: typer.Context,
    name: Name,
    environment: Annotated[
        Literal["staging", "production"],
        typer.Option("--from", metavar="ENVIRONMENT", help="Where to stop it: staging or production."),
    ],
    reason: Reason = "",
    wait: Wait = True,
) -> None:
    """Stop serving a model in an environment."""
    yard = yard_of(context)
    asked = yard.deployments.undeploy(name, environment, reason=reason, wait=False)
    if wait:
        wait_for(yard, name, asked, environment)
    print(f"{name} {'is not served' if wait else 'will not be served'} in {environment} any more")


def status(context: typer.Context, as_json: Json = False) -> None:
    """What serves where, and what is under way."""
    yard = yard_of(context)
    rows = yard.deployments.status()
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        print(f"nothing is deployed from {yard.store.url} yet; `modelyard stage REF` begins")
        return
    cells = [(r.environment, r.model, r.serving, r.target, _readiness(r), r.outcome, _short(r.reason)) for r in rows]
    print_table(("ENVIRONMENT", "MODEL", "SERVING", "TARGET", "READY", "OUTCOME", "REASON"), cells)
    if not yard.local_status(yard.store).running():
        from modelyard.deployment.manager import WHERE, WHO

        target = yard.settings.deployment.target
        where, who = WHERE.get(target, WHERE["local"]), WHO.get(target, WHO["local"])
        print(f"note: nothing {where} carries deployments out; start `modelyard {who}`", file=sys.stderr)


def logs(
    context: typer.Context,
    name: Name,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="COUNT", min=1, help="How many, of each replica.")
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written, also by new replicas, until Ctrl-C.")
    ] = False,
) -> None:
    """The last lines of a model's replicas on this machine; of one on demand, of all that its pool holds."""
    from modelyard.deployment.targets.kubernetes.pods import logs_command
    from modelyard.deployment.targets.logs import Follower, last_lines
    from modelyard.refs import parse_name

    yard, model = yard_of(context), parse_name(name)
    if yard.settings.deployment.target == "kubernetes":
        command = logs_command(model, yard.settings.kubernetes, lines=lines, follow=follow)
        raise NotFound(f"{model} runs in a cluster, not on this machine", remedy=f"see `{command}`")
    pooled = any(row.on_demand and row.model == model for row in yard.deployments.status())

    def found() -> list[Path]:
        return yard.local_target.logs(model) + (yard.local_target.logs() if pooled else [])

    follower, there = Follower(), found()
    if not there:
        yard.repository.tags(model)  # raises NotFound where there is no such model
    if not there and not follow:
        raise NotFound(f"no replica of {name} ran on this machine", remedy="see `modelyard status`")
    follower.skip(there)
    for path in there:
        print(f"==> {path}")
        print("\n".join(last_lines(path, lines)), flush=True)
    if follow:
        _follow(follower, found)


def _follow(follower: Follower, found: Callable[[], list[Path]]) -> None:
    """For ever; says which file it is when that changes."""
    last = None
    while True:
        for path in found():
            if text := follower.read(path):
                print(text if path == last else f"==> {path}\n{text}", end="", flush=True)
                last = path
        time.sleep(_FOLLOW_S)


def up(context: typer.Context) -> None:
    """Run everything on this machine: the gateway, the replicas that should serve, the API. Ctrl-C ends it."""
    from modelyard.api.app import create_app
    from modelyard.api.server import ApiServer

    log_to_stderr()
    yard = yard_of(context)
    if (target := yard.settings.deployment.target) != "local":
        raise Refused(
            f"deployment.target is {target}, so replicas are not this machine's business",
            remedy="unset it (MODELYARD_DEPLOYMENT__TARGET), or use `modelyard api` for the API alone",
        )
    yard.access.require("gateway", yard.settings.gateway.host)
    yard.access.require("api", yard.settings.api.host)
    controller = yard.controller([ApiServer(create_app(yard), yard.settings.api)])
    addresses = f"store {yard.store.url}\ngateway {yard.settings.gateway.url}\napi {yard.settings.api.url}"
    controller.run(ready=lambda: print(addresses, flush=True))


def wait_for(yard: Yard, name: str, asked: Deployment, environment: str) -> None:
    """Until the rollout has ended, or somebody has had enough of waiting."""
    with goes_on():
        yard.deployments.wait(name, asked, environment)


@contextmanager
def goes_on() -> Iterator[None]:
    """Ctrl-C ends the waiting alone."""
    try:
        yield
    except KeyboardInterrupt:
        print("the rollout goes on; see `modelyard status`", file=sys.stderr)
        raise typer.Exit(130) from None


def _readiness(row: Status) -> str:
    if row.on_demand:
        return "loaded" if row.ready else "on demand"
    return f"{row.ready}/{row.wanted}"


def _short(text: str) -> str:
    """For a table on a terminal; elsewhere all of it."""
    return text if len(text) <= _REASON or not sys.stdout.isatty() else f"{text[: _REASON - 1]}…"


def named_version(context: typer.Context, ref: str) -> tuple[str, str]:
    """The name and version a reference means now; a bare name is refused, since it could mean much."""
    from modelyard.refs import ModelRef

    parsed = ModelRef.parse(ref)
    if not parsed.selector:
        raise no_version(context, parsed, or_tag="latest")
    version = yard_of(context).repository.resolve(parsed)
    return version.name, str(version.version)


def suite_in(path: Path | None) -> Suite | None:
    """The suite in a file, if one is given."""
    from modelyard.deployment import read_suite

    return read_suite(path) if path else None

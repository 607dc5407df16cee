"""Commands that run in a cluster, or say what it is to run: controller, gateway, deploy manifests, deploy set."""

from __future__ import annotations

import signal
import sys
from threading import Event
from typing import Annotated, Literal

import typer

from modelyard.cli.context import Name, Reason, log_to_stderr, yard_of

deploy = typer.Typer(help="How models run where they are deployed.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.command()(controller)
    app.command()(gateway)
    deploy.command()(manifests)
    deploy.command("set")(change)
    app.add_typer(deploy, name="deploy")


def controller(context: typer.Context) -> None:
    """Carry deployments out in a Kubernetes cluster; of several, one does. Ctrl-C ends it, and nothing it started."""
    log_to_stderr()
    yard = yard_of(context)
    reconciler = yard.cluster.controller()
    print(f"store {yard.store.url}\nnamespace {reconciler.parts.cluster.namespace}", flush=True)
    reconciler.run(_asked_to_stop())


def gateway(context: typer.Context) -> None:
    """Lead requests to the pods of a Kubernetes cluster: Envoy, kept at what is deployed. Ctrl-C ends it.

    The API answers beside it, as it does beside `modelyard up`.
    """
    from modelyard.api.app import create_app
    from modelyard.api.server import ApiServer

    log_to_stderr()
    yard = yard_of(context)
    yard.access.require("gateway", yard.settings.gateway.host)
    yard.access.require("api", yard.settings.api.host)
    running, api = yard.cluster.gateway(), ApiServer(create_app(yard), yard.settings.api)
    api.start()
    try:
        addresses = f"gateway {yard.settings.gateway.url}\napi {yard.settings.api.url}"
        print(f"store {yard.store.url}\n{addresses}", flush=True)
        running.run(_asked_to_stop())
    finally:
        api.stop()


def manifests(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(metavar="REF", help="name:v1.2.0; with --environment, a name alone.")],
    environment: Annotated[
        Literal["staging", "production"] | None,
        typer.Option("--environment", metavar="ENVIRONMENT", help="What is deployed there, as it is deployed."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of the spec, such as resources.gpus=1; may be repeated."),
    ] = None,
) -> None:
    """Print the objects that a version needs on Kubernetes, as YAML; the same each time."""
    from modelyard.deployment.spec import changed
    from modelyard.deployment.targets.kubernetes.manifests import as_yaml, out_of_reach, wanted

    yard = yard_of(context)
    version, spec, where = wanted(yard.repository, ref, environment, yard.settings.deployment.replicas)
    workload = yard.cluster.workloads.of(version, where, changed(spec, changes or ()))
    print(as_yaml(workload, yard.settings.kubernetes), end="")
    if problem := out_of_reach(yard.settings):
        print(f"note: {problem}", file=sys.stderr)


def change(
    context: typer.Context,
    name: Name,
    changes: Annotated[list[str], typer.Argument(metavar="KEY=VALUE", help="Such as resources.gpus=1, replicas=3.")],
    environment: Annotated[
        Literal["staging", "production"],
        typer.Option("--in", metavar="ENVIRONMENT", help="Where it runs: staging or production."),
    ],
    reason: Reason = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the rollout has ended.")] = True,
) -> None:
    """Change how a model runs in an environment; what is deployed there is rolled over."""
    from modelyard.deployment.spec import ANYWHERE

    yard = yard_of(context)
    yard.deployments.configure(name, environment, changes, reason=reason, wait=wait)
    print(f"{name} in {environment}: {', '.join(changes)}")
    idle = [each for each in changes if each.partition("=")[0] not in ANYWHERE]
    if idle and yard.settings.deployment.target == "local":
        print(f"note: {', '.join(idle)} has an effect on Kubernetes only", file=sys.stderr)


def _asked_to_stop() -> Event:
    """Set by SIGTERM or SIGINT."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop

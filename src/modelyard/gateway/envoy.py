"""The gateway: Envoy, kept at a route table by files that it watches.

Make before break: what is new is confirmed by Envoy before routes use it, and what is old goes after routes have left
it. Files have no acknowledgement, so Envoy's admin interface is asked. One owner at a time; it may be killed at any
moment, and the next one goes on from what Envoy says it has.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from modelyard.access.rules import Issuer
from modelyard.errors import Unavailable
from modelyard.gateway import config, process, statistics, watches
from modelyard.gateway.admin import Admin, State
from modelyard.gateway.process import Run
from modelyard.gateway.replies import Document
from modelyard.gateway.routes import Backend, RouteTable
from modelyard.gateway.statistics import Counts, Statistics
from modelyard.settings import GatewaySettings

_START_TIMEOUT_S = 20.0
_ADOPT_TIMEOUT_S = 3.0
_DRAIN_S = 30.0
_PORT_PATIENCE_S = 1.0
_POLL_S = 0.01
_OWN_WATCHES = 8  # for routes, clusters and Envoy itself, with room to spare


class Gateway:
    """One Envoy, whose state lives in `folder`."""

    def __init__(self, folder: Path, settings: GatewaySettings, *, issuer: Issuer | None = None) -> None:
        """`issuer`: the OpenID Connect issuer that a table's access rules may name."""
        self._folder = folder.resolve()
        self._settings = settings
        self._issuer = issuer
        self._applied: tuple[Run, RouteTable] | None = None

    def start(self) -> None:
        """Have Envoy listen: adopt the one that runs from this folder, or start it. Idempotent.

        Raises Unavailable when the address or the access log can't be used, MissingExtra when there is no Envoy.
        """
        (self._folder / "eds").mkdir(parents=True, exist_ok=True)
        address = _resolve(self._settings)
        bootstrap = json.dumps(config.bootstrap(self._folder, address, self._settings, self._issuer), indent=1)
        path = config.bootstrap_path(self._folder)
        run = process.find(self._folder)
        if run is not None and path.read_text() == bootstrap and self._listens(run, address, _ADOPT_TIMEOUT_S):
            return
        self.stop()  # one with other settings, or one that an earlier owner began to stop
        _check_free(address, self._settings)
        _check_access_log(self._settings.access_log)
        process.write(path, bootstrap)  # only while none runs: the file says what the running one was started with
        self._write_missing()
        statistics.forget(self._folder)
        watches.require(_OWN_WATCHES + len(list((self._folder / "eds").glob("*.json"))))
        offset = process.log_size(self._folder)
        run = process.spawn(self._folder, self._settings.workers, timeout_s=_START_TIMEOUT_S)
        if not self._listens(run, address, _START_TIMEOUT_S):
            reason = process.last_line(process.log_since(self._folder, offset)) or "it does not listen"
            self.stop(drain_s=0)
            raise Unavailable(f"the gateway did not start: {reason}", remedy=f"see {process.log_path(self._folder)}")

    def alive(self) -> bool:
        return process.recorded(self._folder) is not None

    def apply(self, table: RouteTable, *, timeout_s: float = 10) -> None:
        """Make Envoy route as the table says; returns when Envoy confirms it. Equal tables cost nothing.

        Raises Unavailable, with Envoy's reason, when it refuses or does not confirm in time.
        """
        run = self._run()
        if self._applied == (run, table):
            return
        deadline = time.monotonic() + timeout_s
        admin = Admin(run.admin_port)
        statistics.remember(self._folder, table)
        routes = config.rds(table, self._settings)
        if table.access.on:  # before a route asks for tokens, what they are checked with must be there
            self._put_tokens(admin, table, deadline)
        clusters = config.clusters(table, self._folder, _ca_file(table))
        replicas = [backend for backend in table.clusters.values() if not backend.remote]
        state = admin.state()
        if state.routes_version != routes["version_info"]:
            wide = [backend.widened(state.endpoints.get(backend.cluster, ())) for backend in replicas]
            self._put_clusters(admin, wide, admin.clusters() | clusters, deadline)
            self._put_routes(admin, routes, deadline)
        if not table.access.on:
            self._put_tokens(admin, table, deadline)
        self._put_clusters(admin, replicas, clusters, deadline)
        for path in (self._folder / "eds").glob("*.json"):
            if path.stem not in clusters:
                path.unlink()
        self._applied = (run, table)

    def in_flight(self) -> dict[tuple[str, str, int], int]:
        """(cluster, host, port) → requests which that replica has not answered to the end."""
        return Admin(self._run().admin_port).in_flight()

    def statistics(self) -> Statistics:
        """What has been counted since Envoy's start. Raises Unavailable when it does not run."""
        return statistics.read(self.counts())

    def counts(self) -> Counts:
        """The same, to be added to what other gateways have counted."""
        return Admin(self._run().admin_port).statistics(), statistics.known(self._folder)

    def stop(self, *, drain_s: float = _DRAIN_S) -> None:
        """Take no new connections, let running requests finish for up to `drain_s`, end Envoy."""
        run = process.find(self._folder)
        running = None if run is None else run.process()
        if run is None or running is None:
            return
        admin = Admin(run.admin_port)
        deadline = time.monotonic() + drain_s
        try:
            admin.drain()
            while admin.active() and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        except Unavailable:
            pass  # it hangs or is gone already; the signal decides
        process.end(running)
        process.record_path(self._folder).unlink(missing_ok=True)
        self._applied = None

    def _run(self) -> Run:
        run = process.recorded(self._folder)
        if run is None:
            raise Unavailable("the gateway does not run", remedy="start it with `modelyard up`")
        return run

    def _written(self) -> dict[str, Document]:
        """The clusters as they were written last."""
        try:
            resources = json.loads(config.cds_path(self._folder).read_text())["resources"]
        except FileNotFoundError:
            return {}
        return {cluster["name"]: cluster for cluster in resources}

    def _put_clusters(
        self, admin: Admin, replicas: Sequence[Backend], definitions: dict[str, Document], deadline: float
    ) -> None:
        """Replicas first, then the list of clusters, so that a new cluster has replicas when it appears."""
        wanted = {backend.cluster: frozenset(backend.endpoints) for backend in replicas}
        clusters = config.cds(definitions)
        state = admin.state()
        documents = {
            config.eds_path(self._folder, backend.cluster): config.eds(backend)
            for backend in replicas
            if state.endpoints.get(backend.cluster) != wanted[backend.cluster]
        }
        if state.clusters_version != clusters["version_info"]:
            documents[config.cds_path(self._folder)] = clusters

        def confirmed(state: State) -> bool:
            same = all(state.endpoints.get(cluster) == endpoints for cluster, endpoints in wanted.items())
            return same and state.clusters_version == clusters["version_info"]

        if documents:
            written = self._written()
            watches.require(sum(definitions[cluster] != written.get(cluster) for cluster in wanted))
            self._put(admin, documents, confirmed, deadline)

    def _put_routes(self, admin: Admin, routes: Document, deadline: float) -> None:
        path = config.rds_path(self._folder)
        self._put(admin, {path: routes}, lambda state: state.routes_version == routes["version_info"], deadline)

    def _put_tokens(self, admin: Admin, table: RouteTable, deadline: float) -> None:
        tokens = config.tokens(table.access)
        if admin.state().tokens_version != tokens["version_info"]:
            path = config.tokens_path(self._folder)
            self._put(admin, {path: tokens}, lambda state: state.tokens_version == tokens["version_info"], deadline)

    def _put(
        self, admin: Admin, documents: dict[Path, Document], confirmed: Callable[[State], bool], deadline: float
    ) -> None:
        """Write, and wait until Envoy has taken it over. Raises Unavailable if it refuses or takes too long."""
        before = admin.state()
        offset = process.log_size(self._folder)
        for path, document in documents.items():
            process.write(path, json.dumps(document))
        while not confirmed(state := admin.state()):
            if state.refused_since(before):
                reason = process.last_line(process.log_since(self._folder, offset))
                raise Unavailable(
                    f"Envoy refuses the new routes: {reason}", remedy="see envoy.log; it keeps the old ones"
                )
            if time.monotonic() > deadline:
                names = ", ".join(path.name for path in documents)
                raise Unavailable(f"Envoy does not confirm {names} in time", remedy="apply again; see envoy.log")
            time.sleep(_POLL_S)

    def _write_missing(self) -> None:
        """Envoy waits for its files before it listens; those of an earlier run are the better start."""
        empty = RouteTable()
        documents = {
            config.srds_path(self._folder): config.srds(),
            config.rds_path(self._folder): config.rds(empty, self._settings),
            config.cds_path(self._folder): config.cds({}),
            config.tokens_path(self._folder): config.tokens(empty.access),
        }
        for path, document in documents.items():
            if not path.exists():
                process.write(path, json.dumps(document))

    def _listens(self, run: Run, address: str, timeout_s: float) -> bool:
        """Whether this Envoy takes requests, now or within the time."""
        deadline = time.monotonic() + timeout_s
        while not (Admin(run.admin_port).live() and _accepts(address, self._settings.port)):
            if run.process() is None or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


def _ca_file(table: RouteTable) -> str:
    """What the certificates of engines elsewhere are checked against. Raises Unavailable if there is none."""
    found = ssl.get_default_verify_paths().cafile
    if not found and any(backend.remote and backend.remote.tls for backend in table.backends):
        raise Unavailable(
            "this system has no file of certificates to check an engine's by", remedy="name one in SSL_CERT_FILE"
        )
    return found or ""  # None, whatever its type says, where there is no such file


def _resolve(settings: GatewaySettings) -> str:
    """The IP address of the host, IPv4 if it has one."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(
            f"the gateway's host {settings.host!r} has no address: {error.strerror}", remedy="set gateway.host"
        ) from error
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


def _check_free(address: str, settings: GatewaySettings) -> None:
    """Envoy shares ports with other Envoys of the same user without a word, so this asks first.

    The sockets of one that was killed are closed a moment after it is gone, hence some patience.
    """
    deadline = time.monotonic() + _PORT_PATIENCE_S
    while (problem := _bind_problem(address, settings.port)) is not None:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the gateway can't listen on {settings.host}:{settings.port}: {problem}",
                remedy="stop what uses the port, or set gateway.port (MODELYARD_GATEWAY__PORT)",
            )
        time.sleep(_POLL_S)


def _check_access_log(path: Path | None) -> None:
    """Envoy ends without naming the setting."""
    if path is None:
        return
    path = path.expanduser().resolve()
    if not path.parent.is_dir():
        why = f"there is no folder {path.parent}"
    elif path.is_dir():
        why = "it is a folder"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        why = "that is not permitted"
    else:
        return
    raise Unavailable(
        f"the gateway can't write its log {path}: {why}",
        remedy="set gateway.access_log (MODELYARD_GATEWAY__ACCESS_LOG) to a file that can be written",
    )


def _bind_problem(address: str, port: int) -> str | None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError as error:
            return error.strerror
    return None


def _accepts(address: str, port: int) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - asked, not bound
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True

"""What the gateway has counted, read from the statistics that telemetry.py has Envoy keep.

Counts begin with the Envoy process and go with it: changed routes leave them, and a version that is gone keeps its own.
Which environment a cluster belongs to is written down when its routes are applied: Envoy knows clusters by name only.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.gateway import process, telemetry
from modelyard.gateway.clusters import without_fallback
from modelyard.gateway.routes import RouteTable

_LINE = re.compile(r'^envoy_(\w+?)(?:_(bucket|sum|count))?\{(\w+)="((?:[^"\\]|\\.)*)"(?:,le="([^"]+)")?\} (\S+)$', re.M)
_ALL_ACTIVE = "http_downstream_rq_active"
_ACTIVE = ("cluster_upstream_rq_active", "cluster_upstream_rq_pending_active")
_REASONS = (
    ("client_gone", {"DC"}),
    ("no_ready_replica", {"UH", "NC"}),
    ("overloaded", {"UO"}),
    ("timeout", {"UT", "SI", "DT", "UMSDR"}),
    ("replica_failed", {"UF", "UC", "UR", "LR", "URX", "UPE"}),
)


@dataclass(frozen=True, slots=True, order=True)
class Served:
    """Whose requests they are; all empty: the gateway answered by itself before it had chosen a model."""

    model: str = ""
    version: str = ""
    environment: str = ""

    @property
    def ref(self) -> str:
        return f"{self.model}:{self.version}" if self.version else self.model


@dataclass(slots=True)
class Histogram:
    """In seconds; `buckets` are cumulative, by their upper ends as Prometheus writes them."""

    buckets: Counter[str] = field(default_factory=Counter)
    total: float = 0.0


@dataclass(slots=True)
class Statistics:
    """Since Envoy's start. `requests` by status; 0: the client was gone before there was one."""

    requests: Counter[tuple[Served, int]] = field(default_factory=Counter)
    failures: Counter[tuple[Served, str]] = field(default_factory=Counter)
    tokens: Counter[tuple[Served, str]] = field(default_factory=Counter)
    durations: dict[Served, Histogram] = field(default_factory=dict)
    first_tokens: dict[Served, Histogram] = field(default_factory=dict)
    in_flight: Counter[Served] = field(default_factory=Counter)
    all_in_flight: int = 0


Clusters = dict[str, tuple[str, list[str]]]  # cluster → environment, labels
Counts = tuple[str, Clusters]  # Envoy's answer, and what its clusters stand for


def read(*counts: Counts) -> Statistics:
    """The statistics out of what one Envoy has counted, or several, added up."""
    found = Statistics()
    for text, clusters in counts:
        _read(text, clusters, found)
    return found


def failure(status: int, flags: str, *, forwarded: bool) -> str | None:
    """Why a request got no whole answer, by Envoy's response flags; None: it did. A refusal is an answer."""
    for reason, known in _REASONS:
        if known & set(flags.split(",")):
            return reason
    return "engine_error" if forwarded and status >= 500 else None


def remember(folder: Path, table: RouteTable) -> None:
    """Note what the table's clusters stand for, before Envoy counts for them."""
    before = known(folder)
    now = dict(before)
    for backend in table.backends:
        _, labels = now.get(backend.cluster, ("", []))
        now[backend.cluster] = (backend.environment, sorted({*labels, backend.label}))
    if now != before:
        process.write(_path(folder), json.dumps(now))


def known(folder: Path) -> Clusters:
    try:
        noted = json.loads(_path(folder).read_text())
        return {cluster: (str(environment), list(labels)) for cluster, (environment, labels) in noted.items()}
    except (OSError, ValueError):
        return {}


def forget(folder: Path) -> None:
    """For a new Envoy, which has counted nothing."""
    _path(folder).unlink(missing_ok=True)


def _path(folder: Path) -> Path:
    return folder / "backends.json"


def _read(text: str, clusters: Clusters, found: Statistics) -> None:
    kinds = {f"modelyard_{name}": kind for kind, name in telemetry.TOKENS.items()}
    histograms = {
        f"modelyard_{telemetry.DURATION}": found.durations,
        f"modelyard_{telemetry.FIRST_TOKEN}": found.first_tokens,
    }
    for name, part, _tag, of, upper, number in _LINE.findall(text):
        value = float(number)
        if name in histograms:
            served, _ = _served(of, clusters)
            _add(histograms[name].setdefault(served, Histogram()), part, upper, value)
        elif name == f"modelyard_{telemetry.REQUESTS}":
            served, (status, flags) = _served(of, clusters)
            found.requests[served, int(status)] += round(value)
            if reason := failure(int(status), flags, forwarded=not of.startswith(telemetry.SEPARATOR)):
                found.failures[served, reason] += round(value)
        elif name in kinds:
            served, _ = _served(of, clusters)
            found.tokens[served, kinds[name]] += round(value)
        elif name in _ACTIVE and of in clusters:
            found.in_flight[_one(of, clusters)] += round(value)
        elif name == _ALL_ACTIVE:
            found.all_in_flight += round(value)


def _served(of: str, clusters: Clusters) -> tuple[Served, list[str]]:
    """Whose statistic it is, and what else its tag says. What was refused on the way to a replica has no label."""
    label, cluster, *more = of.split(telemetry.SEPARATOR)
    cluster = without_fallback(cluster)
    if not label:
        return _one(cluster, clusters) if cluster in clusters else Served(), more
    environment, _ = clusters.get(cluster, ("", []))
    return _labelled(label, environment), more


def _one(cluster: str, clusters: Clusters) -> Served:
    """When the cluster is all that is known, which versions may share."""
    environment, labels = clusters[cluster]
    return _labelled(labels[0] if len(labels) == 1 else "", environment)


def _labelled(label: str, environment: str) -> Served:
    model, _, version = label.partition("@")[0].partition(":")
    return Served(model, version, environment)


def _add(histogram: Histogram, part: str, upper: str, value: float) -> None:
    if part == "sum":
        histogram.total += value / telemetry.MICROSECONDS
    elif part == "bucket":
        end = upper if upper == "+Inf" else str(float(upper) / telemetry.MICROSECONDS)
        histogram.buckets[end] += round(value)

"""What the gateway has counted, in Prometheus' format, at /metrics.

Knows names and labels, not where the numbers come from. All labels are of what is or was deployed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response

from modelyard.errors import MissingExtra, ModelyardError, StoreError, Unavailable
from modelyard.gateway.statistics import Histogram, Served, Statistics

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ImportError as error:
    raise MissingExtra("prometheus-client", "api") from error

_SERVED = ("model", "version", "environment", "engine")


class Metrics(Collector):
    """`read` gives the gateway's statistics, or raises Unavailable; `engine_of` tells the engine of a version."""

    def __init__(self, read: Callable[[], Statistics], engine_of: Callable[[str], str]) -> None:
        self._read = read
        self._engine_of = engine_of
        self._engines: dict[Served, str] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def answer(self, request: Request) -> Response:
        """The endpoint. It blocks."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": content_type})

    def describe(self) -> list[Metric]:
        """Nothing, so that registering asks no gateway."""
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            found = self._read()
        except Unavailable:
            yield GaugeMetricFamily("modelyard_gateway_up", "Whether the gateway runs.", 0)
            return
        yield GaugeMetricFamily("modelyard_gateway_up", "Whether the gateway runs.", 1)
        yield GaugeMetricFamily(
            "modelyard_gateway_requests_in_flight", "Requests of clients under way.", found.all_in_flight
        )
        yield self._gauge("modelyard_requests_in_flight", "Requests that replicas have.", found.in_flight)
        requests = {(served, str(status)): count for (served, status), count in found.requests.items()}
        yield self._counter("modelyard_requests", "Requests that ended, by status.", "code", requests)
        yield self._counter("modelyard_request_failures", "Requests without a whole answer.", "reason", found.failures)
        yield self._counter("modelyard_tokens", "Tokens that answers told of.", "kind", found.tokens)
        yield self._histogram(
            "modelyard_request_duration_seconds", "From a request's first byte to its answer's last.", found.durations
        )
        yield self._histogram(
            "modelyard_time_to_first_token_seconds",
            "From a request's first byte to the first of a streamed answer's body.",
            found.first_tokens,
        )

    def _counter(self, name: str, meaning: str, label: str, counts: Mapping[tuple[Served, str], int]) -> Metric:
        family = CounterMetricFamily(name, meaning, labels=(*_SERVED, label))
        for (served, value), count in sorted(counts.items()):
            family.add_metric([*self._labels(served), value], count)
        return family

    def _gauge(self, name: str, meaning: str, counts: Mapping[Served, int]) -> Metric:
        family = GaugeMetricFamily(name, meaning, labels=_SERVED)
        for served, count in sorted(counts.items()):
            family.add_metric(self._labels(served), count)
        return family

    def _histogram(self, name: str, meaning: str, histograms: Mapping[Served, Histogram]) -> Metric:
        family = HistogramMetricFamily(name, meaning, labels=_SERVED)
        for served, histogram in sorted(histograms.items(), key=lambda each: each[0]):
            buckets = [*histogram.buckets.items()]
            family.add_metric(self._labels(served), buckets, histogram.total)
        return family

    def _labels(self, served: Served) -> list[str]:
        return [served.model, served.version, served.environment, self._engine(served)]

    def _engine(self, served: Served) -> str:
        """Asked once for each; a store that does not answer is asked again the next time."""
        if not served.model:
            return ""
        if served not in self._engines:
            try:
                self._engines[served] = self._engine_of(served.ref)
            except (StoreError, Unavailable):
                return ""
            except ModelyardError:
                self._engines[served] = ""
        return self._engines[served]

"""Metrics: what the service counts, on a registry of its own, without a single id among the labels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from flask import Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.service.node import Node

_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_NEVER: Final = -1.0


class NodeCollector(Collector):
    """How the node stands, read when somebody asks."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of this moment."""
        refresher = self._node.refresher
        published = refresher.published
        age, seq, holds = _NEVER, 0.0, 0.0
        if published is not None:
            age = published.age_us(self._node.clocks.raw_us_ceil()) / 1_000_000
            seq = float(published.replica.position.seq)
            holds = float(sum(map(len, published.replica.holds.values())))
        yield GaugeMetricFamily(
            "haltline_read_age_seconds", "Age of the node's newest read of the log; -1 before the first", value=age
        )
        yield GaugeMetricFamily("haltline_log_seq", "Position of the log as this node has read it", value=seq)
        yield GaugeMetricFamily("haltline_active_holds", "Active holds as this node has read them", value=holds)
        yield GaugeMetricFamily(
            "haltline_log_diverged",
            "1 if this node refuses leases for good, because the log is not the one it read before",
            value=float(refresher.halted is not None),
        )
        skew = self._node.skew.seconds
        if skew is not None:
            yield GaugeMetricFamily(
                "haltline_clock_ahead_seconds",
                "By how much this node's wall clock was ahead of the database's when they were compared last",
                value=skew,
            )
        yield GaugeMetricFamily("haltline_streams", "Open lease streams", value=float(self._node.streams.open))
        yield CounterMetricFamily(
            "haltline_streams_followed",
            "Lease streams that began right after another one on their connection",
            self._node.streams.followed,
        )
        yield GaugeMetricFamily("haltline_workers", "Workers heard of lately", value=float(self._node.acks.workers))
        key_age = self._node.stamp_keys.age_s
        yield GaugeMetricFamily(
            "haltline_stamp_key_age_seconds",
            "Age of the newest stamp key that this node gives out; -1 where it knows none",
            value=_NEVER if key_age is None else key_age,
        )
        ended = CounterMetricFamily("haltline_outcomes", "Ends of stopped runs that workers told of", labels=["ended"])
        for word, count in sorted(self._node.outcomes.told.items()):
            ended.add_metric([word], count)
        yield ended
        cleanups = CounterMetricFamily("haltline_cleanups", "Cleanups that workers told of", labels=["outcome"])
        for word, count in sorted(self._node.outcomes.cleanups.items()):
            cleanups.add_metric([word], count)
        yield cleanups
        yield CounterMetricFamily("haltline_acks", "Positions that workers have acknowledged", self._node.acks.count)


class Metrics:
    """The counters of one application."""

    def __init__(self, node: Node) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(NodeCollector(node))
        self._requests = Counter(
            "haltline_requests",
            "Requests by route, method and status",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "haltline_request_seconds", "How long requests took", ["route"], buckets=_BUCKETS, registry=self._registry
        )
        lag = Histogram(
            "haltline_ack_lag_seconds",
            "From this node's reading of a flip to a worker's ack of it",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        node.acks.observe(lag.observe)
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count_requests(self, app: Flask) -> None:
        """Have every request of ``app`` counted."""

        @app.before_request
        def begin() -> None:
            g.began_s = time.perf_counter()

        @app.after_request
        def end(response: Response) -> Response:
            # The rule, never the path: a path carries ids, and 404s would make a label each.
            route = request.url_rule.rule if request.url_rule is not None else "none"
            method = request.method if request.method in {"GET", "HEAD", "POST", "DELETE", "OPTIONS"} else "other"
            self.count(route, method, response.status_code, time.perf_counter() - g.began_s)
            return response

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            route: the rule of its route.
            method: one of a fixed few.
            status: of its reply.
            seconds: how long it took.
        """
        labels = (route, method, int(status))
        series = self._series.get(labels)
        if series is None:
            # Kept: to find a series by its labels costs more than to count in it.
            series = self._requests.labels(route, method, str(int(status))), self._seconds.labels(route)
            self._series[labels] = series
        series[0].inc()
        series[1].observe(seconds)

    def exposition(self) -> Response:
        """Return everything in Prometheus' text format."""
        return Response(generate_latest(self._registry), content_type=CONTENT_TYPE_LATEST)

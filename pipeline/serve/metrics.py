"""Counts and times for Prometheus; they stay in the process until somebody reads /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one service."""

    def __init__(self, most_in_batch: int) -> None:
        self._registry = CollectorRegistry()
        sizes = [2**power for power in range(most_in_batch.bit_length())]
        self.requests = Counter(
            "placecache_requests", "Requests by path and status", ("path", "status"), registry=self._registry
        )
        self.photos = Counter("placecache_photos", "Photos by outcome", ("outcome",), registry=self._registry)
        self.seconds = Histogram(
            "placecache_request_seconds",
            "Time of requests with photos",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batches = Histogram(
            "placecache_batch_photos",
            "Photos in a pass through the backbone",
            buckets=sizes,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

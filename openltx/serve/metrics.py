"""What Prometheus sees: requests are counted here, everything about jobs is read from the store when asked for."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openltx.serve.store.database import Database
from openltx.serve.store.jobs import Jobs
from openltx.serve.store.totals import totals
from openltx.serve.store.uploads import Uploads
from openltx.serve.store.workers import Workers

_METHODS = ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")


class Metrics:
    """The metrics of one server."""

    def __init__(self, database: Database, jobs: Jobs, uploads: Uploads, workers: Workers) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("openltx_http_requests", "Requests answered.", labels, registry=self._registry)
        self._latency = Histogram(
            "openltx_http_request_seconds",
            "Time to answer a request.",
            ("method", "route"),
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10),
            registry=self._registry,
        )
        self._registry.register(_StoreCollector(database, jobs, uploads, workers))

    def requested(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus' format."""
        return generate_latest(self._registry)


class _StoreCollector(Collector):
    def __init__(self, database: Database, jobs: Jobs, uploads: Uploads, workers: Workers) -> None:
        self._database, self._jobs, self._uploads, self._workers = database, jobs, uploads, workers

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("openltx_jobs", "Jobs by state.", labels=["status"])
        for status, count in self._jobs.counts().items():
            jobs.add_metric([status], count)
        yield jobs
        yield GaugeMetricFamily("openltx_disk_bytes", "Bytes of all uploads and results.", self._uploads.bytes())
        ages = [time.time() - worker.beat_at for worker in self._workers.all()]
        yield GaugeMetricFamily("openltx_workers", "Worker processes.", len(ages))
        yield GaugeMetricFamily("openltx_worker_silence_seconds", "Since the last sign of life.", max(ages, default=0))
        counted = totals(self._database)
        for name, label, what in (
            ("jobs_accepted", None, "Jobs accepted."),
            ("jobs_finished", "status", "Jobs that ended, by state."),
            ("stage_seconds", "stage", "Time of completed jobs, by stage."),
        ):
            family = CounterMetricFamily(f"openltx_{name}", what, labels=[label] if label else [])
            for (total, value), amount in counted.items():
                if total == name:
                    family.add_metric([value] if label else [], amount)
            yield family

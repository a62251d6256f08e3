"""What Prometheus may know: queues, batches and times. Never who was examined.

With several processes ``PROMETHEUS_MULTIPROC_DIR`` must be set before this module is imported, and all of them are
added up (https://prometheus.github.io/client_python/multiprocess/).
"""

import os
from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SHORT_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_LONG_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

REQUESTS = Counter("carina_requests", "Requests answered.", ["route", "method", "status"])
REQUEST_SECONDS = Histogram("carina_request_seconds", "From a request to its answer.", ["route"], buckets=_LONG_S)
QUEUE = Gauge("carina_classify_queue", "Crops that wait for a batch.", multiprocess_mode="livesum")
BATCH_SIZE = Histogram(
    "carina_classify_batch_size", "Crops classified together.", buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32)
)
WAIT_SECONDS = Histogram("carina_classify_wait_seconds", "From a crop's arrival to its batch.", buckets=_SHORT_S)
COMPUTE_SECONDS = Histogram("carina_classify_compute_seconds", "Time that a batch took.", buckets=_SHORT_S)
UPLOADS = Gauge("carina_uploads", "Studies that are being received.", multiprocess_mode="livesum")
STAGE_SECONDS = Histogram("carina_job_stage_seconds", "Time of a job's stages.", ["stage"], buckets=_LONG_S)


def render(jobs: dict[str, int]) -> bytes:
    """All metrics in the text format.

    Args:
        jobs: number of jobs by state, which the database knows.
    """
    registry = CollectorRegistry()
    registry.register(_Jobs(jobs))
    text = generate_latest(registry)
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return text + generate_latest(together)
    return text + generate_latest(REGISTRY)


class _Jobs:
    def __init__(self, jobs: dict[str, int]) -> None:
        self._jobs = jobs

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("carina_jobs", "Jobs by state.", labels=["state"])
        for state, count in self._jobs.items():
            family.add_metric([state], count)
        yield family

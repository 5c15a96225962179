"""Metrics for Prometheus: verdicts by method and reason, how issuers' keys stand, which version of the settings is in use."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from prometheus_client import CollectorRegistry, Counter, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from grpc_bearer import Authenticator, Observation

from .listener import ListenError, listen_fault
from .reload import Reloader
from .settings import Address

OTHER: Final = "other"
"""The method label of a name that is not in the policy table: callers must not be able to make up labels."""

_GAUGES: Final = {
    "ready": "1 while tokens of the issuer can be verified",
    "keys": "Usable keys of the issuer",
    "stale": "1 while its keys serve past their freshness",
    "fetch_failures": "Failed fetches of its keys since the last good one",
    "keys_age_seconds": "Since the last good fetch of its keys",
}


class Metrics:
    """Counts verdicts: `observe` is the interceptors' observer."""

    def __init__(self, auth: Authenticator, reloader: Reloader) -> None:
        self.registry: Final = CollectorRegistry()
        self._auth = auth
        self._verdicts = Counter(
            "grpc_bearer_verdicts",
            "Verdicts on calls. reason is OK for those that may go on; enforced=no: they went on all the same",
            ["method", "reason", "enforced"],
            registry=self.registry,
        )
        self.registry.register(_State(auth, reloader))

    def observe(self, observation: Observation) -> None:
        """Count one verdict."""
        known = self._auth.gate.policies.is_known(observation.method)
        self._verdicts.labels(
            observation.method if known else OTHER,
            "OK" if observation.reason is None else str(observation.reason),
            "yes" if observation.enforced else "no",
        ).inc()


class _State(Collector):
    """What is read off the authenticator when it is asked for."""

    def __init__(self, auth: Authenticator, reloader: Reloader) -> None:
        self._auth = auth
        self._reloader = reloader

    def collect(self) -> Iterator[Metric]:
        gauges = {
            name: GaugeMetricFamily(f"grpc_bearer_issuer_{name}", text, labels=["issuer"]) for name, text in _GAUGES.items()
        }
        for status in self._auth.status():
            values = {
                "ready": status.ready,
                "keys": len(status.key_ids),
                "stale": status.stale,
                "fetch_failures": status.failures,
                "keys_age_seconds": status.fetched_age_s,
            }
            for name, value in values.items():
                if value is not None:
                    gauges[name].add_metric([status.issuer], value)
        yield from gauges.values()
        yield GaugeMetricFamily("grpc_bearer_settings_version", "Versions of the settings so far", self._reloader.generation)
        yield GaugeMetricFamily("grpc_bearer_settings_reload_failed", "1 while the file cannot be used", self._reloader.failed)


class MetricsServer:
    """Serves a registry over HTTP inside `with`. Raises `ListenError`."""

    def __init__(self, address: Address, registry: CollectorRegistry) -> None:
        try:
            self._server, self._thread = start_http_server(address.port, address.host, registry)
        except (OSError, UnicodeError) as error:
            raise ListenError(listen_fault(address, "metrics.listen", error)) from None
        self.address: Final = Address(address.host, self._server.server_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

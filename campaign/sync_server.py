"""A server of `grpc.server` behind the library's interceptor: `python -m campaign.sync_server SETTINGS.toml`.

By the settings file of `grpc-bearer serve`. SIGHUP: read it again. SIGTERM: drain, and end.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc

from grpc_bearer import current_claims
from grpc_bearer.sync import AuthInterceptor
from grpc_bearer.v1.identity_pb2 import (
    WatchIdentityRequest,
    WatchIdentityResponse,
    WhoAmIRequest,
    WhoAmIResponse,
)
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from grpc_bearer_server.assembly import authenticator_of, issuers_of, policies_of
from grpc_bearer_server.listener import channel_options
from grpc_bearer_server.loading import load
from grpc_bearer_server.services.identity import identity_of

WORKERS: Final = 32
REPEAT_S: Final = 0.2
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Identities(IdentityServiceServicer):
    """Synchronous handlers. A watched identity is repeated, and holds a worker, until `draining` is set."""

    def __init__(self, draining: threading.Event) -> None:
        self._draining = draining

    def WhoAmI(self, request: WhoAmIRequest, context: Any) -> WhoAmIResponse:  # noqa: N802
        return WhoAmIResponse(identity=identity_of(current_claims()))

    def WatchIdentity(self, request: WatchIdentityRequest, context: Any) -> Iterator[WatchIdentityResponse]:  # noqa: N802
        identity = identity_of(current_claims())
        while context.is_active():
            yield WatchIdentityResponse(identity=identity)
            if self._draining.wait(REPEAT_S):
                context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down, call again")


def _fill(pool: ThreadPoolExecutor) -> None:
    """Have it start all its threads now and not as they are needed: any further thread is one too many then."""
    together = threading.Barrier(WORKERS)
    for started in [pool.submit(together.wait) for _worker in range(WORKERS)]:
        started.result()


def main() -> None:
    """Serve until SIGTERM. The one line on stdout says where."""
    path = Path(sys.argv[1])
    settings = load(path)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # before there are threads: they inherit it
    draining = threading.Event()
    with (
        ThreadPoolExecutor(WORKERS) as pool,
        authenticator_of(settings, issuers_of(settings), policies_of(settings)) as auth,
    ):
        _fill(pool)
        server = grpc.server(
            pool,
            interceptors=[AuthInterceptor(auth, max_waiters=WORKERS // 4)],
            options=channel_options(settings.server),
            maximum_concurrent_rpcs=settings.server.max_concurrent_rpcs,
        )
        add_IdentityServiceServicer_to_server(Identities(draining), server)
        port = server.add_insecure_port("127.0.0.1:0")
        auth.start()
        server.start()
        print(f"serving on 127.0.0.1:{port}", flush=True)
        while signal.sigwait(SIGNALS) == signal.SIGHUP:
            new = load(path)
            auth.reload(issuers=issuers_of(new), policies=policies_of(new))
            print("reloaded", flush=True)
        draining.set()
        server.stop(settings.server.drain_s).wait()


if __name__ == "__main__":
    main()

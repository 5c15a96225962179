"""An issuer that turns hostile on command, at one address on loopback, and the settings of the services that rest on it."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from grpc_bearer import Authenticator, CachePolicy, FetchOptions, Issuer
from tests.support.clock import Clock
from tests.support.jwks_server import DISCOVERY_PATH, JWKS_PATH, JwksServer
from tests.support.tls import Identity, identity
from tests.support.tokens import AUDIENCE, ISSUER, key

K1, K2, K3 = (key(kid, "EdDSA") for kid in ("k1", "k2", "k3"))
"""The key that services know from before, the one that the issuer signs with since, and one more."""

FRESH_S = 0.2
COOLDOWN_S = 0.3
BACKOFF_S = 0.1
BACKOFF_MAX_S = 0.2
HURRIED_S = 0.3
"""Small, so that trouble is met within moments: the defaults are 600, 30, 1, 60 and, for a fetch's time, 5 seconds."""

PATIENT_S = 20.0
"""A fetch's time where none is to run out, however busy the machine is."""

DAY_S = 86_400.0


class Door:
    """A port in front of `port`: open, it carries bytes both ways; shut, it refuses connections. It keeps its address."""

    def __init__(self, port: int) -> None:
        self._behind = ("127.0.0.1", port)
        # Bound for good and never listening: the address is nobody else's while the door is shut.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", 0))
        self._listening: socket.socket | None = None
        self.open()

    @property
    def port(self) -> int:
        """Where the door is."""
        return int(self._held.getsockname()[1])

    def open(self) -> None:
        """Let connections through."""
        if self._listening is None:
            self._listening = socket.create_server(self._held.getsockname(), reuse_port=True)
            threading.Thread(target=self._serve, args=(self._listening,), daemon=True).start()

    def shut(self) -> None:
        """Refuse connections. Those that are through stay."""
        if self._listening is not None:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None

    def close(self) -> None:
        """Give the address up."""
        self.shut()
        self._held.close()

    def _serve(self, listening: socket.socket) -> None:
        with suppress(OSError):  # shut
            while True:
                connection, _peer = listening.accept()
                threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, outside: socket.socket) -> None:
        with suppress(OSError), outside, socket.create_connection(self._behind) as inside:
            while ready := select.select((outside, inside), (), (), 30.0)[0]:
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    (inside if source is outside else outside).sendall(data)


class World:
    """The issuer and what stands around it. `server` and `door` are told how to misbehave; `right()` ends all of it.

    `elsewhere` is another server, with the right keys, to which nobody should be led. `discovery`: services find the keys
    by discovery. `tls`: the issuer speaks TLS. `fresh_s`: of keys, when the issuer does not say otherwise.
    `max_stale_s`: past that. `timeout_s`: of a fetch.
    """

    def __init__(
        self,
        *,
        discovery: bool = False,
        tls: bool = False,
        fresh_s: float = FRESH_S,
        max_stale_s: float = DAY_S,
        timeout_s: float = PATIENT_S,
    ) -> None:
        self._discovery = discovery
        self._max_stale_s = max_stale_s
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self.clock = Clock(time.time())
        self._open = ExitStack()
        self._folder = Path(self._open.enter_context(TemporaryDirectory()))
        self._authorities = self._folder / "authorities.pem" if tls else None
        self._certificate = self._made("127.0.0.1", expired=False) if tls else None
        self._context = None if self._certificate is None else self._certificate.server_context()
        self.server = self._open.enter_context(JwksServer(K1, tls=self._context))
        self.elsewhere = self._open.enter_context(JwksServer(K1, K2))
        self.door = self._open.enter_context(closing(Door(int(self.server.url.rpartition(":")[2]))))
        self.right()
        self.server.keys = (K1,)

    @property
    def url(self) -> str:
        """The issuer's root."""
        return f"{self.server.url.partition(':')[0]}://127.0.0.1:{self.door.port}"

    def right(self) -> None:
        """All is well, and the new key is published."""
        server = self.server
        server.raw, server.body, server.status = None, None, 200
        server.headers = {"Connection": "close"}  # no waiting for a second request that the door will cut off
        server.keys = (K1, K2)
        server.metadata = {"issuer": ISSUER, "jwks_uri": self.url + JWKS_PATH}
        server.resume()
        self.door.open()
        self.clock.now = time.time()
        if self._certificate is not None:
            self._present(self._certificate)

    def certify(self, host: str = "127.0.0.1", *, expired: bool = False) -> None:
        """Have the issuer show such a certificate from now on. Its authority is trusted: that is not what is wrong."""
        self._present(self._made(host, expired=expired))

    def _made(self, host: str, *, expired: bool) -> Identity:
        made = identity(self._folder / f"{host} {expired}", host, expired=expired)
        assert self._authorities is not None
        with self._authorities.open("a") as file:
            file.write(Path(made.ca_file).read_text())
        return made

    def _present(self, certificate: Identity) -> None:
        assert self._context is not None
        self._context.load_cert_chain(certificate.cert_file, certificate.key_file)

    def authenticator(self) -> Authenticator:
        """That of a service which trusts the issuer. It has not asked for anything yet."""
        where = "discovery_uri" if self._discovery else "jwks_uri"
        uri: dict[str, Any] = {where: self.url + (DISCOVERY_PATH if self._discovery else JWKS_PATH)}
        cache = CachePolicy(
            fresh_s=self._fresh_s,
            min_fresh_s=self._fresh_s,
            max_stale_s=self._max_stale_s,
            cooldown_s=COOLDOWN_S,
            backoff_initial_s=BACKOFF_S,
            backoff_max_s=BACKOFF_MAX_S,
        )
        fetch = FetchOptions(timeout_s=self._timeout_s, ca_file=None if self._authorities is None else str(self._authorities))
        issuer = Issuer(ISSUER, audiences=[AUDIENCE], cache=cache, fetch=fetch, **uri)
        return Authenticator([issuer], clock=self.clock)

    def close(self) -> None:
        """Nothing serves any more."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

"""Runs the embedded issuer beside the service: uvicorn in a thread of its own, so that its signal handling stays out."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Final, Self

import uvicorn

from ..listener import ListenError, listen_fault
from ..settings import Address, DevSettings
from .endpoints import application
from .keys import load_or_make
from .tokens import TokenRequest, mint

START_TIMEOUT_S: Final = 10.0


class EmbeddedIssuer:
    """The issuer, listening from construction on and serving inside `with`. Raises `ListenError` and `StateError`."""

    def __init__(self, settings: DevSettings) -> None:
        keys = load_or_make(settings.state_dir)
        self._socket = _bound(settings.listen)
        host, port = self._socket.getsockname()[:2]
        self.url: Final = f"http://{Address(host, port)}"
        self.audience: Final = settings.audience
        self.algorithms: Final = tuple(keys)
        self._keys = keys
        self._defaults = TokenRequest(audience=settings.audience, ttl_s=settings.ttl_s)
        app = application(self.url, keys, self._defaults)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", server_header=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="grpc-bearer-embedded-issuer", daemon=True
        )

    def mint(self) -> str:
        """A token as the token endpoint gives it to one who asks for nothing in particular."""
        key = self._keys[self._defaults.alg]
        return mint(self._defaults, issuer=self.url, key=key, now=int(time.time()), jti=str(uuid.uuid4()))

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ListenError("the embedded issuer did not start; its log line above says why")
            time.sleep(0.005)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._server.should_exit = True
        self._thread.join(START_TIMEOUT_S)
        self._socket.close()


def _bound(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=128)
    except OSError as error:
        raise ListenError(listen_fault(address, "dev.listen", error)) from None

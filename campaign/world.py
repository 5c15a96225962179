"""The issuer and the operator of the long run: keys that rotate, an issuer that fails, settings that are reloaded.

The issuer is a real one's like: it publishes a key before it signs with it, for longer than the freshness of its keys; it signs
short-lived tokens; it publishes a key until the last token that it signed has expired.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from campaign.attacks import Server
from campaign.picture import Span
from campaign.servers import Running
from tests.support.jwks_server import JwksServer
from tests.support.scraping import scrape
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, jwks, new_key

SECOND_ISSUER: Final = "https://second.example"
TOKEN_S: Final = 15.0
LEEWAY_S: Final = 1.0
FRESH_S: Final = 4.0
COOLDOWN_S: Final = 2.0
FETCH_S: Final = 5.0
PUBLISHED_AHEAD_S: Final = 2 * FRESH_S
PUBLISHED_AFTER_S: Final = TOKEN_S + LEEWAY_S + 2.0
RECOVERED_S: Final = FETCH_S + 3.0
"""After an outage: the fetch under way times out, the pause after it is a second at most, the next one succeeds."""

_WIDE: Final = f"""
[[issuers]]
issuer = "{SECOND_ISSUER}"
audiences = ["{AUDIENCE}"]
jwks_file = "SECOND_FILE"
"""
_NARROW: Final = """
[[rules]]
methods = ["grpc_bearer.v1.IdentityService/WhoAmI"]
scopes = ["orders.write"]
"""
VERSIONS: Final = {"wide": _WIDE, "narrow": _NARROW}
"""What of the settings changes. `wide`: a second issuer is trusted. `narrow`: it is not, and WhoAmI requires a scope."""

_BROKEN: Final = "[[issuers\n"


def _settings(issuer: JwksServer, metrics: bool) -> str:
    exposed = '[metrics]\nlisten = "127.0.0.1:0"\n' if metrics else ""
    return f"""
[server]
drain_s = 15.0
reload_s = 0.5
{exposed}
[verdicts]
max_entries = 200

[[issuers]]
issuer = "{ISSUER}"
audiences = ["{AUDIENCE}"]
jwks_uri = "{issuer.jwks_uri}"
leeway_s = {LEEWAY_S}
fetch = {{ timeout_s = {FETCH_S} }}

[issuers.cache]
fresh_s = {FRESH_S}
min_fresh_s = 1.0
refresh_at = 0.5
cooldown_s = {COOLDOWN_S}
backoff_initial_s = 0.2
backoff_max_s = 1.0
"""


@dataclass(frozen=True, slots=True)
class Generation:
    """The issuer's keys of one time: it signs with both."""

    rsa: SigningKey
    ed25519: SigningKey

    @classmethod
    def new(cls, number: int) -> Generation:
        """Fresh keys."""
        return cls(new_key(f"rsa-{number}"), new_key(f"ed25519-{number}", "EdDSA"))

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """Both."""
        return self.rsa, self.ed25519


@dataclass(slots=True)
class World:
    """What is so now. `versions`: of the settings that each server may be using at the moment; one, but for a reload."""

    issuer: JwksServer
    folder: Path
    signing: Generation = field(default_factory=lambda: Generation.new(0))
    retired: Generation | None = None  # not published, and every server knows
    second: SigningKey = field(default_factory=lambda: new_key("second", "EdDSA"))
    versions: dict[Server, frozenset[str]] = field(default_factory=dict)
    reachable_since: float = 0.0  # on the monotonic clock; infinite while it is not
    events: list[tuple[float, str]] = field(default_factory=list)
    outages: list[Span] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    _number: int = 0

    @property
    def now_s(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.begun

    def note(self, text: str) -> None:
        """Something has happened."""
        self.events.append((round(self.now_s, 1), text))

    @property
    def is_well(self) -> bool:
        """Whether each server's last fetch has succeeded, as far as the issuer can tell."""
        return time.monotonic() - self.reachable_since > RECOVERED_S

    # settings

    def settings_of(self, server: Server) -> Path:
        """The server's settings file."""
        return self.folder / f"{server}.toml"

    def write(self, server: Server, version: str) -> None:
        """Put a version of the settings in place, by a rename."""
        second = self.folder / "second.json"
        if not second.exists():
            second.write_text(json.dumps(jwks(self.second)), encoding="ascii")
        content = _settings(self.issuer, metrics=server == "service") + VERSIONS[version].replace("SECOND_FILE", str(second))
        self._put(server, content)

    def _put(self, server: Server, content: str) -> None:
        path = self.settings_of(server)
        written = path.with_suffix(".new")
        written.write_text(content, encoding="utf-8")
        written.rename(path)

    async def reload(self, running: Running, version: str, metrics_url: str) -> None:
        """Have the server use another version, and wait until it says so."""
        (old,) = self.versions[running.name]
        self.versions[running.name] = frozenset({old, version})
        if running.name == "service":
            before = await asyncio.to_thread(_version_in_use, metrics_url)
            self.write(running.name, version)
            if version == "narrow":  # and the other way it is found by looking
                running.process.signal(signal.SIGHUP)
            await until(lambda: _version_in_use(metrics_url) > before)
        else:
            self.write(running.name, version)
            running.process.signal(signal.SIGHUP)
            await asyncio.to_thread(running.process.line, "^reloaded$")
        self.versions[running.name] = frozenset({version})
        self.note(f"{running.name}: settings {version}")

    async def break_settings(self, running: Running, metrics_url: str) -> None:
        """A version that cannot be used, which changes nothing; then the good one again."""
        (version,) = self.versions[running.name]
        self._put(running.name, _BROKEN)
        await until(lambda: scrape(metrics_url)["grpc_bearer_settings_reload_failed",] == 1)
        self.write(running.name, version)
        await until(lambda: scrape(metrics_url)["grpc_bearer_settings_reload_failed",] == 0)
        self.note(f"{running.name}: broken settings")

    # the issuer

    async def rotate(self) -> None:
        """Publish, wait, sign, wait, retire. About half a minute."""
        self._number += 1
        old, new = self.signing, Generation.new(self._number)
        self.issuer.keys = (*old.keys, *new.keys)
        self.note("next keys published")
        await asyncio.sleep(PUBLISHED_AHEAD_S)
        self.signing = new
        self.note("signing with them")
        await asyncio.sleep(PUBLISHED_AFTER_S)
        self.retired = None
        self.issuer.keys = new.keys
        self.note("old keys withdrawn")
        await asyncio.sleep(PUBLISHED_AHEAD_S)
        self.retired = old

    async def fail(self, how: str, seconds: float) -> None:
        """An outage."""
        start, self.reachable_since = self.now_s, float("inf")
        self.note(f"issuer: {how}")
        issuer = self.issuer
        if how == "hangs":
            issuer.hang()
        elif how == "refuses":
            issuer.raw = _reset
        elif how == "503":
            issuer.status = 503
        elif how == "a login page":
            issuer.body = b"<html>sign in</html>"
        else:
            issuer.delay_s = FETCH_S + 1
        try:
            await asyncio.sleep(seconds)
        finally:
            issuer.resume()
            issuer.raw, issuer.status, issuer.body, issuer.delay_s = None, 200, None, 0.0
            self.reachable_since = time.monotonic()
            self.outages.append(Span(start, self.now_s))


OUTAGES: Final = ("hangs", "503", "refuses", "a login page", "is slow")


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _version_in_use(metrics_url: str) -> float:
    return scrape(metrics_url)["grpc_bearer_settings_version",]


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for what another thread or process will do. Raises `TimeoutError`."""
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.1)

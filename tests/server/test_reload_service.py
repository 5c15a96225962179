"""Hot reload of the running service: under load not one verdict that no version would have given, and SIGHUP."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from grpc_bearer.v1.identity_pb2 import WatchIdentityRequest, WhoAmIRequest
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub
from tests.support.calls import bearer, outcome, until
from tests.support.jwks_server import JwksServer
from tests.support.processes import PATIENCE_S
from tests.support.scraping import scrape
from tests.support.service import Service, serving_process, trusting
from tests.support.service_client import IDENTITY_SERVICE, SERVING, Client, client_of, reason_of
from tests.support.tokens import AUDIENCE, forged, key, mint
from tests.support.waiting import eventually

CALLS = 10_000
"""At least, on a machine that gets through them."""
SWAPS = 50
CLIENTS = 8
FOR_A_SWAP_S = 0.25
"""A machine that does not get through the calls in this time goes on to the next version all the same."""

Verdict = tuple[str, str]
"""A reason, "OK" for none, and the scopes that the refusal names."""

LATER = 4_102_444_800  # made when the tests are collected, and used minutes later
OK: Verdict = ("OK", "")
INVALID: Verdict = ("TOKEN_INVALID", "")
NEEDS_A: Verdict = ("INSUFFICIENT_SCOPE", "a")
NEEDS_B: Verdict = ("INSUFFICIENT_SCOPE", "b")

TOKENS: Mapping[str, str | None] = {
    "a": mint(scope="a", exp=LATER),
    "b": mint(scope="b", exp=LATER),
    "both": mint(scope="a b", exp=LATER),
    "neither": mint(scope="c", exp=LATER),
    "forged": forged(exp=LATER),
    "none": None,
}


def requiring(issuer: JwksServer, scope: str) -> str:
    return trusting(issuer) + f'[[rules]]\nmethods = ["{IDENTITY_SERVICE}/WhoAmI"]\nscopes = ["{scope}"]\n'


def trusting_another(issuer: JwksServer) -> str:
    """The same keys under another name: tokens of the issuer that is gone would verify, and are of nobody."""
    return (
        f'[[issuers]]\nissuer = "https://other.example"\naudiences = ["{AUDIENCE}"]\njwks_uri = "{issuer.jwks_uri}"\n'
        f'[[rules]]\nmethods = ["{IDENTITY_SERVICE}/WhoAmI"]\nscopes = ["a"]\n'
    )


BROKEN = "[[issuers\n"
UNCLOSED = "Expected ']]' at the end of an array declaration (at line 1, column 10)"
GIVEN = {
    "scope a": {"a": OK, "b": NEEDS_A, "both": OK, "neither": NEEDS_A},
    "scope b": {"a": NEEDS_B, "b": OK, "both": OK, "neither": NEEDS_B},
    "issuer gone": dict.fromkeys(("a", "b", "both", "neither"), INVALID),
}
"""What each version says of the tokens. The broken one says nothing, and of two of the tokens all say the same."""
ALWAYS = {"forged": INVALID, "none": ("TOKEN_MISSING", "")}


@dataclass
class Load:
    """Clients that call and call, and what they were told."""

    target: str
    told: Counter[tuple[str, Verdict]] = field(default_factory=Counter)
    stopped: bool = False

    def has_made(self, calls: int) -> bool:
        return self.told.total() >= calls

    async def client(self, first: int) -> None:
        tokens = itertools.islice(itertools.cycle(TOKENS), first, None)
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.target, options) as channel:
            stub: Any = IdentityServiceStub(channel)
            while not self.stopped:
                name = next(tokens)
                self.told[name, await verdict(stub, name)] += 1


async def verdict(stub: Any, name: str) -> Verdict:
    """What the service says of a token now."""
    end = await outcome(stub.WhoAmI(WhoAmIRequest(), metadata=bearer(TOKENS[name]), timeout=PATIENCE_S))
    if end.code is grpc.StatusCode.OK:
        assert [answer.identity.subject for answer in end.responses] == ["user-1"]
        return OK
    if end.info is None:
        return (end.code.name, end.message)  # not by us
    return end.info.reason, end.info.metadata.get("scopes", "")


@dataclass(frozen=True)
class Reloading:
    """A service whose settings file is replaced."""

    service: Service
    path: Path
    url: str

    def replace(self, text: str) -> None:
        """By a rename: whoever reads gets one version or the other."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)

    def version(self) -> tuple[int, bool]:
        """How many versions were in use, and whether the newest is not."""
        samples = scrape(self.url)
        return int(samples["grpc_bearer_settings_version",]), bool(samples["grpc_bearer_settings_reload_failed",])

    async def is_at(self, version: tuple[int, bool]) -> None:
        """Wait for it."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := await asyncio.to_thread(self.version)) != version:
            assert time.monotonic() < deadline, f"at {found}, not at {version}\n{self.service.process.stderr}"
            await asyncio.sleep(0.01)


@contextmanager
def reloading(folder: Path, config: str, reload_s: str) -> Iterator[Reloading]:
    variables = {"SERVER__RELOAD_S": reload_s, "SERVER__LOG_LEVEL": "warning", "METRICS__LISTEN": "127.0.0.1:0"}
    with serving_process(folder, config=config, **variables) as service:
        yield Reloading(service, folder / "settings.toml", service.process.line("^metrics on ").split()[2])


async def test_under_load_no_verdict_is_one_that_no_version_of_the_settings_would_have_given(tmp_path: Path) -> None:
    with JwksServer(key()) as issuer:
        texts = {
            "scope a": requiring(issuer, "a"),
            "scope b": requiring(issuer, "b"),
            "broken": BROKEN,
            "issuer gone": trusting_another(issuer),
        }
        with reloading(tmp_path, texts["scope a"], "0.02") as one:
            async with grpc.aio.insecure_channel(one.service.target) as channel:
                stub: Any = IdentityServiceStub(channel)
                metadata = bearer(TOKENS["both"])
                watching = stub.WatchIdentity(WatchIdentityRequest(), metadata=metadata, timeout=3 * PATIENCE_S)
                await anext(aiter(watching))

                load = Load(one.service.target)
                clients = [asyncio.create_task(load.client(number)) for number in range(CLIENTS)]
                order = itertools.islice(itertools.cycle(["scope b", "broken", "issuer gone", "scope a"]), SWAPS)
                in_use, versions = "scope a", 1
                for swap, name in enumerate(order, 1):
                    one.replace(texts[name])
                    if name != "broken":
                        in_use, versions = name, versions + 1
                    await one.is_at((versions, name == "broken"))
                    with suppress(AssertionError):
                        await until(partial(load.has_made, swap * CALLS // SWAPS), FOR_A_SWAP_S)
                load.stopped = True
                await asyncio.gather(*clients)

                would_be: dict[str, set[Verdict]] = {
                    name: {given[name] for given in GIVEN.values()} for name in GIVEN["scope a"]
                }
                would_be |= {name: {said} for name, said in ALWAYS.items()}
                told: dict[str, set[Verdict]] = {name: {said for n, said in load.told if n == name} for name in TOKENS}
                assert told == would_be, load.told
                assert {name: await verdict(stub, name) for name in TOKENS} == GIVEN[in_use] | ALWAYS
                assert not watching.done()  # it was let in by a version that is gone
                watching.cancel()


def test_sighup_reloads_at_once_and_a_broken_version_stops_nothing(tmp_path: Path) -> None:
    with (
        JwksServer(key()) as issuer,
        reloading(tmp_path, requiring(issuer, "a"), "0") as one,
        client_of(one.service) as client,
    ):
        assert said_of(client, "a") is None
        one.replace(requiring(issuer, "b"))
        time.sleep(0.3)
        assert (said_of(client, "a"), one.version()) == (None, (1, False))  # nobody has looked
        one.service.process.signal(signal.SIGHUP)
        assert eventually(lambda: one.version() == (2, False))
        assert (said_of(client, "a"), said_of(client, "b")) == ("INSUFFICIENT_SCOPE", None)
        one.replace(BROKEN)
        one.service.process.signal(signal.SIGHUP)
        assert eventually(lambda: one.version() == (2, True))
        assert (said_of(client, "a"), said_of(client, "b")) == ("INSUFFICIENT_SCOPE", None)
        one.replace(trusting_another(issuer))
        one.service.process.signal(signal.SIGHUP)
        assert eventually(lambda: one.version() == (3, False))
        assert (said_of(client, "a"), said_of(client, "b")) == ("TOKEN_INVALID", "TOKEN_INVALID")
        log = [line.partition(" grpc_bearer.reload: ") for line in one.service.process.stderr.splitlines()]
        said = [text.replace(str(one.path), "PATH") for _before, found, text in log if found]
        assert said == [
            "PATH: settings reloaded (version 2)",
            f"settings are NOT reloaded, the last good ones stay in use: PATH: is not TOML: {UNCLOSED}",
            "PATH: settings reloaded (version 3)",
        ]


def said_of(client: Client, name: str) -> str | None:
    """The reason for which a token is refused now."""
    return reason_of(client.asking(TOKENS[name]))


def test_rules_that_cannot_be_put_to_use_leave_the_last_good_ones(tmp_path: Path) -> None:
    with (
        JwksServer(key()) as issuer,
        reloading(tmp_path, requiring(issuer, "a"), "0.02") as one,
        client_of(one.service) as client,
    ):
        assert said_of(client, "b") == "INSUFFICIENT_SCOPE"
        for text, why in [
            (requiring(issuer, "b").replace("WhoAmI", "WhoIAm"), "has no such method; did you mean WhoAmI?"),
            (requiring(issuer, "b").partition("[[rules]]")[2].join(["[[rules]]", ""]), "issuers: none is configured"),
            (requiring(issuer, "b") + trusting(issuer), "is listed twice; merge the two"),
            ("", "issuers: none is configured, so every call would be refused"),
        ]:
            one.replace(text)
            assert eventually(lambda why=why: why in one.service.process.stderr), text  # type: ignore[misc]
            assert one.version() == (1, True)
            assert (said_of(client, "a"), said_of(client, "b")) == (None, "INSUFFICIENT_SCOPE")


def test_sighup_without_a_settings_file_is_nothing(tmp_path: Path) -> None:
    with JwksServer(key()) as issuer:
        variables = {
            "ISSUERS__0__ISSUER": "https://issuer.example",
            "ISSUERS__0__AUDIENCES": AUDIENCE,
            "ISSUERS__0__JWKS_URI": issuer.jwks_uri,
        }
        with serving_process(tmp_path, **variables) as service, client_of(service) as client:
            assert said_of(client, "a") is None
            service.process.signal(signal.SIGHUP)
            assert client.health() == SERVING
            assert said_of(client, "a") is None
            assert "reload" not in service.process.stderr

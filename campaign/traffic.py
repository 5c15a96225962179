"""The calls of the long run, each with the verdicts that are right at the time: anything else is counted as wrong."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from campaign.servers import Running
from campaign.world import SECOND_ISSUER, TOKEN_S, World
from grpc_bearer import Reason
from grpc_bearer.v1.identity_pb2 import WatchIdentityRequest, WhoAmIRequest
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub
from tests.support.tokens import SigningKey, forged, mint, new_key

DEADLINE_S: Final = 15.0
CHANNELS: Final = 4
_RENEWED_S: Final = 6.0
"""How old tokens that are used again may be, and connections."""
AT_THE_SIGNAL_S: Final = 0.25
"""A call that was begun so shortly before SIGTERM may not have reached the server: it may be refused as the later ones are."""

OK: Final = "OK"
REFUSED_AT_THE_END: Final = frozenset({"UNAVAILABLE", "CANCELLED"})
"""What grpc says to a call that reaches a server which is stopping. CANCELLED: core had it, and no handler yet (measured)."""
Verdict = str
"""OK, a `Reason` of ours, or the name of a status code that came without one."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A call's end. `text`: for people."""

    verdict: Verdict
    text: str = ""


@dataclass(slots=True)
class Call:
    """One that is being made. `right`: the verdicts that are right for it."""

    kind: str
    right: set[Verdict]
    begun: float


class Traffic:
    """The clients of one server. `counts`: calls by kind and verdict; `wrong`: those with another than a right one.

    `quiet`: no calls any more whose keys the issuer does not have.
    """

    def __init__(self, world: World, running: Running) -> None:
        self.counts: Counter[tuple[str, Verdict]] = Counter()
        self.wrong: list[str] = []
        self.quiet = False
        self.told_to_stop_at = float("inf")
        self._world = world
        self._running = running
        self._chance = random.Random(running.name)
        self._calls: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._channels = [self._channel() for _channel in range(CHANNELS)]
        self._renewed_at = 0.0
        self._known: list[str] = []
        self._nobody = new_key("nobody", "EdDSA")
        self._turn = itertools.count()
        weighted: dict[Callable[[], Awaitable[None]], int] = {
            self._known_token: 12,
            self._fresh_token: 8,
            self._short_stream: 4,
            self._stream_to_its_end: 1,
            self._cancelled: 2,
            self._reader: 2,
            self._of_second_issuer: 2,
            self._expired: 2,
            self._forged: 2,
            self._for_another_audience: 2,
            self._of_nobody: 1,
            self._without: 1,
            self._malformed: 1,
            self._unknown_kid: 1,
            self._retired_key: 1,
        }
        self._kinds = [kind for kind, weight in weighted.items() for _time in range(weight)]

    def _channel(self) -> Any:
        return grpc.aio.insecure_channel(self._running.target, options=[("grpc.use_local_subchannel_pool", 1)])

    async def run(self, per_s: float, stop: asyncio.Event) -> None:
        """`per_s` calls a second until `stop` is set; all have ended then."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, begin + number / per_s - loop.time()))
            if stop.is_set():
                break
            self._renew()
            if number % len(self._kinds) == 0:
                self._chance.shuffle(self._kinds)
            self._keep(self._kinds[number % len(self._kinds)]())
        await asyncio.gather(*self._calls)
        await asyncio.gather(*self._closing, *(channel.close() for channel in self._channels))

    def waiting(self, signer: SigningKey, calls: int) -> list[asyncio.Task[Ended]]:
        """Calls with tokens of a key that the server has to fetch, all under way."""
        return [asyncio.create_task(self._ask(mint(signer, exp=time.time() + 60))) for _call in range(calls)]

    def _keep(self, call: Awaitable[None]) -> None:
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _renew(self) -> None:
        """New tokens to be used again, and a new connection in place of the oldest."""
        now = time.monotonic()
        if now - self._renewed_at < _RENEWED_S:
            return
        self._renewed_at = now
        self._known = [self._good() for _token in range(8)]
        oldest = self._channels.pop(0)
        closing = asyncio.ensure_future(oldest.close(grace=DEADLINE_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._channels.append(self._channel())

    def _stub(self) -> Any:
        return IdentityServiceStub(self._channels[next(self._turn) % CHANNELS])

    def _good(self, **claims: Any) -> str:
        signing = self._world.signing
        lived: dict[str, Any] = {"exp": time.time() + TOKEN_S} | claims
        return mint(signing.rsa if next(self._turn) % 2 else signing.ed25519, jti=f"{next(self._turn)}", **lived)

    # making a call, and judging it

    async def _ask(self, token: str | None) -> Ended:
        """A WhoAmI."""
        return await _end_of(self._stub().WhoAmI(WhoAmIRequest(), metadata=bearer(token), timeout=DEADLINE_S))

    def _begin(self, kind: str, right: Iterable[Verdict]) -> Call:
        return Call(kind, set(right), time.monotonic())

    def _judge(self, call: Call, ended: Ended, *, ends_with_server: bool = False) -> None:
        if call.begun > self.told_to_stop_at - AT_THE_SIGNAL_S or (
            ends_with_server and time.monotonic() > self.told_to_stop_at
        ):
            call.right |= REFUSED_AT_THE_END
        self.counts[call.kind, ended.verdict] += 1
        if ended.verdict not in call.right:
            self.wrong.append(
                f"{self._world.now_s:.1f} s, {self._running.name}, {call.kind}: {ended.verdict} {ended.text!r}, "
                f"and right is {' or '.join(sorted(call.right))}"
            )

    async def _asking(self, kind: str, token: str | None, *right: Verdict) -> None:
        call = self._begin(kind, right)
        self._judge(call, await self._ask(token))

    async def _by_version(self, kind: str, token: str, right: dict[str, Verdict]) -> None:
        """Right is what any version of the settings says that may have been in use meanwhile."""
        in_use = self._world.versions[self._running.name]
        call = self._begin(kind, ())
        ended = await self._ask(token)
        call.right |= {right[version] for version in in_use | self._world.versions[self._running.name]}
        self._judge(call, ended)

    async def _by_issuer(self, kind: str, token: str) -> None:
        """A `kid` that is not to be had: INVALID by an issuer that can be asked, UNAVAILABLE by one that cannot."""
        was_well = self._world.is_well
        call = self._begin(kind, (Reason.TOKEN_INVALID,))
        ended = await self._ask(token)
        if not (was_well and self._world.is_well):
            call.right.add(Reason.KEYS_UNAVAILABLE)
        self._judge(call, ended)

    # the kinds

    async def _known_token(self) -> None:
        await self._asking("good, known", self._chance.choice(self._known), OK)

    async def _fresh_token(self) -> None:
        await self._asking("good, fresh", self._good(), OK)

    async def _short_stream(self) -> None:
        call = self._begin("stream, hung up on", (OK,))
        stream = self._stub().WatchIdentity(WatchIdentityRequest(), metadata=bearer(self._good()), timeout=DEADLINE_S)
        ended = await _end_of(stream.read())
        if ended.verdict == OK:
            await asyncio.sleep(self._chance.uniform(0.1, 0.8))
            stream.cancel()
        self._judge(call, ended, ends_with_server=True)

    async def _stream_to_its_end(self) -> None:
        call = self._begin("stream, until its token ends", (Reason.TOKEN_EXPIRED,))
        token = self._good(exp=time.time() + 1.5)
        stream = self._stub().WatchIdentity(WatchIdentityRequest(), metadata=bearer(token), timeout=DEADLINE_S)
        ended = Ended(OK)
        messages = 0
        while ended.verdict == OK:
            messages += 1
            ended = await _end_of(stream.read())
        if messages == 1 and ended.verdict in call.right:
            ended = Ended("no message", "it ended before the first one")
        self._judge(call, ended, ends_with_server=True)

    async def _cancelled(self) -> None:
        call = self._begin("cancelled", ("CANCELLED", OK))
        started = self._stub().WhoAmI(WhoAmIRequest(), metadata=bearer(self._good()), timeout=DEADLINE_S)
        await asyncio.sleep(self._chance.uniform(0.0, 0.003))
        started.cancel()
        self._judge(call, await _end_of(started))

    async def _reader(self) -> None:
        right = {"wide": OK, "narrow": Reason.INSUFFICIENT_SCOPE}
        await self._by_version("good, lacks a scope at times", self._good(scope="orders.read"), right)

    async def _of_second_issuer(self) -> None:
        token = mint(self._world.second, iss=SECOND_ISSUER, exp=time.time() + TOKEN_S)
        await self._by_version("good, issuer trusted at times", token, {"wide": OK, "narrow": Reason.TOKEN_INVALID})

    async def _expired(self) -> None:
        await self._asking("expired", self._good(iat=time.time() - 120, exp=time.time() - 60), Reason.TOKEN_EXPIRED)

    async def _forged(self) -> None:
        await self._asking("forged", forged(self._world.signing.rsa, jti=f"{next(self._turn)}"), Reason.TOKEN_INVALID)

    async def _for_another_audience(self) -> None:
        await self._asking("another audience", self._good(aud="billing"), Reason.TOKEN_INVALID)

    async def _of_nobody(self) -> None:
        await self._asking("unknown issuer", mint(self._nobody, iss="https://nobody.example"), Reason.TOKEN_INVALID)

    async def _without(self) -> None:
        await self._asking("no token", None, Reason.TOKEN_MISSING)

    async def _malformed(self) -> None:
        await self._asking("malformed", self._good().replace(".", "..", 1), Reason.TOKEN_MALFORMED)

    async def _unknown_kid(self) -> None:
        if not self.quiet:
            signer = SigningKey(f"unknown-{next(self._turn)}", self._nobody.alg, self._nobody.private_key)
            await self._by_issuer("unknown kid", mint(signer))

    async def _retired_key(self) -> None:
        retired = self._world.retired
        if retired is not None and not self.quiet:
            await self._by_issuer("withdrawn key", mint(retired.rsa))


async def _end_of(awaited: Awaitable[Any]) -> Ended:
    """What a caller sees of a call, or of its next message."""
    try:
        if await awaited is grpc.aio.EOF:
            return Ended("end of stream")
    except asyncio.CancelledError:
        if _is_cancelled_itself():
            raise
        return Ended("CANCELLED")
    except grpc.aio.AioRpcError as error:
        return Ended(_reason(error) or error.code().name, error.details() or "")
    return Ended(OK)


def _reason(error: grpc.aio.AioRpcError) -> str | None:
    """Of a refusal of ours. None for what has another cause."""
    details = dict(tuple(error.trailing_metadata() or ())).get("grpc-status-details-bin")
    info = ErrorInfo()
    if isinstance(details, bytes) and any(detail.Unpack(info) for detail in Status.FromString(details).details):
        return str(info.reason)
    return None


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a token; none for None."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


def _is_cancelled_itself() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

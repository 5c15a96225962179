"""One row, carried out: services of both stacks over real gRPC, their callers before, in and after the trouble, and figures."""

from __future__ import annotations

import asyncio
import itertools
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from grpc_bearer import Authenticator
from tests.hostile_issuer.scenarios import FINE, INVALID, UNAVAILABLE, Scenario
from tests.hostile_issuer.world import BACKOFF_MAX_S, BACKOFF_S, COOLDOWN_S, K1, K2, World
from tests.support.calls import Client, until
from tests.support.matrix import SERVICES, registering
from tests.support.serving import STACKS, serving
from tests.support.tokens import SigningKey, key, mint

OBSERVED_S = 0.15
"""How long the trouble lasts at the least, until each caller has seen an answer in it."""

BETWEEN_CALLS_S = 0.02
MOST_EXTRA_MIB = 64.0
"""Of two services that read the worst document at the same time, and the issuer that sends it."""

MIB = 1024 * 1024
_numbers = itertools.count()


def token(signing_key: SigningKey, **claims: Any) -> str:
    """One that was never seen before, so that none is remembered, and that is good whenever the clock says it is."""
    members: dict[str, Any] = {"iat": 1_000_000_000, "exp": 4_102_444_800} | claims
    return mint(signing_key, jti=f"hostile-issuer-{next(_numbers)}", **members)


def forged() -> str:
    """One with a `kid` that nobody has ever heard of."""
    return token(SigningKey(f"forged-{next(_numbers)}", "EdDSA", key("forger", "EdDSA").private_key))


@dataclass(frozen=True)
class Seen:
    """A call: when it began and ended, and how: OK, or the code and the reason."""

    began: float
    ended: float
    outcome: str


@dataclass
class Caller:
    """Calls a server on and on."""

    client: Client
    make_token: Callable[[], str]
    seen: list[Seen] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            answered = await self.client.call("UnaryUnary", self.make_token())
            outcome = answered.code.name if answered.reason is None else f"{answered.code.name} {answered.reason}"
            self.seen.append(Seen(began, time.monotonic(), outcome))
            await asyncio.sleep(BETWEEN_CALLS_S)

    def outcomes(self, since: float, before: float) -> set[str]:
        """How calls ended that were wholly in this time."""
        return {each.outcome for each in self.seen if each.began >= since and each.ended < before}

    def fine_since(self, moment: float) -> float | None:
        """When the first call succeeded that ended after this moment; None while none has."""
        return next((each.ended for each in self.seen if each.ended >= moment and each.outcome == FINE), None)


@dataclass(frozen=True)
class Measured:
    """What came of a row.

    `known`, `new`, `starting`: outcomes on both stacks while the trouble lasted; `after`: of known keys from then on.
    `slowest_s`: of all calls with known keys. `forged`: outcomes of forgers, from beginning to end. `says`: what the status
    said. `fetches`: in `lasted_s`, by the service that was there before. `recovered_s`: from the end of the trouble to the
    first good answer of the last caller. `extra_mib`: the most memory that was taken at once, where it was measured.
    `led_elsewhere`: requests that came to the other host.
    """

    known: set[str]
    slowest_s: float
    new: set[str]
    starting: set[str]
    after: set[str]
    forged: set[str]
    says: str
    fetches: int
    lasted_s: float
    recovered_s: float
    extra_mib: float | None
    led_elsewhere: int


def allowed_fetches(lasted_s: float) -> float:
    """What pauses and cooldown permit in this time, one more that was under way, and one that has just begun."""
    pauses = lasted_s / (0.8 * BACKOFF_S)  # the shortest pause with all its jitter
    return 2 + pauses + 2 * (lasted_s / COOLDOWN_S + 1)


def allowed_failures(lasted_s: float) -> float:
    """The same while every fetch fails, which nothing but pauses governs: the first two are shorter."""
    return 3 + lasted_s / (0.8 * BACKOFF_MAX_S)


@asynccontextmanager
async def service(auth: Authenticator) -> AsyncIterator[list[Client]]:
    """Clients of a synchronous server and of an asyncio one behind the same authenticator."""
    async with AsyncExitStack() as stack:
        clients = []
        for name in STACKS:
            target = await stack.enter_async_context(serving(name, auth, registering(SERVICES[name]()), max_waiters=4))
            clients.append(await stack.enter_async_context(Client(target)))
        yield clients


class Fetches:
    """Counts the fetches of an authenticator, good and bad."""

    def __init__(self, auth: Authenticator) -> None:
        self.count = 0
        auth.on_change(self._add)

    def _add(self) -> None:
        self.count += 1


def _union(sets: Iterable[set[str]]) -> set[str]:
    return set().union(*sets)


async def run(row: Scenario, observed_s: float = OBSERVED_S) -> Measured:
    """Carry the row out. The trouble lasts for `observed_s` at the least."""
    with (
        World(
            discovery=row.discovery, tls=row.tls, fresh_s=row.fresh_s, max_stale_s=row.max_stale_s, timeout_s=row.timeout_s
        ) as world,
        world.authenticator() as before,
        world.authenticator() as late,
    ):
        if row.warm:
            assert await asyncio.to_thread(before.warm, 20.0)
        async with service(before) as clients, service(late) as late_clients:
            return await _observed(row, max(observed_s, row.lasts_s), world, before, clients, late_clients)


async def _observed(
    row: Scenario, observed_s: float, world: World, before: Authenticator, clients: list[Client], late_clients: list[Client]
) -> Measured:
    known = [Caller(client, lambda: token(K1)) for client in clients]
    new = [Caller(client, lambda: token(K2, **row.claims())) for client in clients]
    starting = [Caller(client, lambda: token(K1)) for client in late_clients]
    forgers = [Caller(client, forged) for client in clients] if row.flood else []
    fetches = Fetches(before)
    async with _calling(forgers) if row.flood else _nothing():
        if row.flood:
            await until(lambda: fetches.count >= 2)
        row.trouble(world)
        fetched_before, began = fetches.count, time.monotonic()
        if row.bomb:
            tracemalloc.start()
        try:
            async with _calling([*known, *new, *starting]):
                await asyncio.sleep(observed_s)
                await until(lambda: all(caller.outcomes(began, time.monotonic()) for caller in [*known, *new, *starting]))
                with suppress(AssertionError):  # then it says nothing, and that is a fault
                    await until(lambda: not row.says or _says(before), timeout_s=5.0)
                says = _says(before)
                ended, fetched = time.monotonic(), fetches.count - fetched_before
                extra = tracemalloc.get_traced_memory()[1] / MIB if row.bomb else None
                right = began if row.flood else time.monotonic()
                world.right()
                await until(lambda: all(caller.fine_since(right) is not None for caller in [*known, *new, *starting]))
        finally:
            if row.bomb:
                tracemalloc.stop()
    recovered = max(caller.fine_since(right) or 0.0 for caller in [*new, *starting])
    return Measured(
        known=_union(caller.outcomes(began, ended) for caller in known),
        slowest_s=max(each.ended - each.began for caller in known for each in caller.seen),
        new=_union(caller.outcomes(began, ended) for caller in new),
        starting=_union(caller.outcomes(began, ended) for caller in starting),
        after=_union(caller.outcomes(ended, float("inf")) for caller in known),
        forged=_union(caller.outcomes(0.0, float("inf")) for caller in forgers),
        says=says,
        fetches=fetched,
        lasted_s=ended - began,
        recovered_s=recovered - right,
        extra_mib=extra,
        led_elsewhere=len(world.elsewhere.requests),
    )


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _calling(callers: list[Caller]) -> AsyncIterator[None]:
    """The callers call for as long as the block lasts."""
    tasks = [asyncio.create_task(caller.run()) for caller in callers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended: list[BaseException | None] = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


def _says(auth: Authenticator) -> str:
    (status,) = auth.status()
    return status.last_error or "; ".join(status.skipped)


def faults(row: Scenario, measured: Measured) -> list[str]:
    """What did not come out as the row has it. Time is bounded by what the pauses and cooldown say, not by the machine."""
    expected = {"known": row.known, "new": row.new, "starting": row.starting}
    found = [
        f"{caller} callers saw {sorted(seen)}, and should see {allowed}"
        for caller, allowed in expected.items()
        if not (seen := getattr(measured, caller)) or not seen <= set(allowed)
    ]
    if not measured.after <= {FINE, *row.known}:
        found.append(f"known callers saw {sorted(measured.after)} when all was right again")
    if not measured.forged <= {INVALID}:
        found.append(f"forgers saw {sorted(measured.forged)}")
    if measured.says not in (row.says or ("",)):
        found.append(f"the status says {measured.says!r}")
    failing = row.new == row.starting == (UNAVAILABLE,)
    allowed = allowed_failures(measured.lasted_s) if failing else allowed_fetches(measured.lasted_s)
    allowed = allowed if row.pause_s is None else 2 + measured.lasted_s / row.pause_s
    if measured.fetches > allowed:
        found.append(f"{measured.fetches} fetches in {measured.lasted_s:.2f} s are more than {allowed:.0f}")
    if measured.extra_mib is not None and measured.extra_mib > MOST_EXTRA_MIB:
        found.append(f"{measured.extra_mib:.1f} MiB of memory")
    if measured.led_elsewhere and not row.elsewhere:
        found.append("a fetch was led to another host")
    return found

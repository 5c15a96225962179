"""Each attack of `campaign`, small: a good caller's calls all succeed meanwhile, and the attackers get what they should.

`python -m campaign.clients` is the same at full speed, with figures: docs/hostile-client.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import pytest

from campaign.attacks import ATTACKS, OK, Attack, Server, Wallet
from campaign.caller import GoodCaller
from campaign.load import Load, Tally
from campaign.servers import Running, sample, serving
from tests.support.jwks_server import JwksServer
from tests.support.processes import PATIENCE_S
from tests.support.service import trusting
from tests.support.tokens import key
from tests.support.waiting import eventually

CALLS: Final = 200
GOOD_CALLS: Final = 25
CONNECTIONS: Final = 20
MEMORY_BYTES: Final = 64 * 1024 * 1024
MAX_PUBLIC_RPCS: Final = 80  # a quarter of it from one host, and CONNECTIONS x 10 try
SETTINGS: Final = f"""
[server]
max_concurrent_rpcs = 400
max_public_rpcs = {MAX_PUBLIC_RPCS}
"""
OF_ISSUER: Final = "cache = { cooldown_s = 3600 }\n[verdicts]\nmax_entries = 50"


@dataclass(frozen=True)
class Stage:
    """Servers of both kinds that trust one issuer. `wallet`: the attackers' tokens."""

    issuer: JwksServer
    servers: dict[Server, Running]
    wallet: Wallet


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    rsa, ed25519 = key("k1"), key("k2", "EdDSA")
    settings = tmp_path_factory.mktemp("settings") / "settings.toml"
    with JwksServer(rsa, ed25519) as issuer:
        settings.write_text(SETTINGS + trusting(issuer, OF_ISSUER))
        with serving("service", settings) as service, serving("library", settings) as library:
            assert eventually(lambda: issuer.fetches >= 2)
            yield Stage(issuer, {"service": service, "library": library}, Wallet.filled(rsa, ed25519, CALLS))


def small(attack: Attack) -> Attack:
    """With a few connections and streams: what matters is what becomes of them."""
    return replace(attack, connections=min(attack.connections, CONNECTIONS), window=min(attack.window, 10))


async def attacked(running: Running, attack: Attack, wallet: Wallet, held_to_end: int = 0) -> tuple[Tally, GoodCaller]:
    """Carry it out, with good calls until it has ended and as many again as it takes.

    An attack that does not end by itself goes on for `GOOD_CALLS`, and until `held_to_end` of its calls have ended.
    """
    caller = GoodCaller(running.target, wallet.good)
    await caller.ready()
    ends_by_itself = not (attack.holds or attack.endless)
    load, stop = Load(attack, running.target, wallet.tokens(attack.tokens)), asyncio.Event()
    work = asyncio.create_task(load.run(PATIENCE_S, CALLS if ends_by_itself else None, stop))
    while not work.done():
        await caller.one()
        if caller.codes.total() >= GOOD_CALLS and load.ended >= held_to_end and load.opened:
            stop.set()
    while caller.codes.total() < GOOD_CALLS:
        await caller.one()
    await caller.close()
    return await work, caller


CASES: Final = [pytest.param(server, attack, id=f"{server}-{attack.name}") for attack in ATTACKS for server in attack.servers]


@pytest.mark.parametrize(("server", "attack"), CASES)
async def test_a_good_caller_gets_through_and_attackers_get_nothing(stage: Stage, server: Server, attack: Attack) -> None:
    running = stage.servers[server]
    before = sample(running.process.pid)
    fetches = stage.issuer.fetches
    tally, good = await attacked(running, small(attack), stage.wallet)
    assert good.codes == {"OK": good.codes.total()}
    if not (attack.holds or attack.endless):
        assert tally.ends.total() >= CALLS  # none of them is left hanging
    assert set(tally.ends) <= set(attack.ends)
    assert OK in attack.ends or tally.ends[OK] == 0
    assert stage.issuer.fetches - fetches <= (2 if attack.tokens == "forged, ever new kids" else 0)
    assert sample(running.process.pid).resident - before.resident < MEMORY_BYTES


@pytest.mark.parametrize(("server", "attack"), [case for case in CASES if case.values[1].ends == (OK,)])  # type: ignore[union-attr]
async def test_good_tokens_that_are_ever_new_are_all_accepted(stage: Stage, server: Server, attack: Attack) -> None:
    tally, _good = await attacked(stage.servers[server], small(attack), stage.wallet)
    assert tally.ends == {OK: tally.begun}


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if "Health" in attack.name], ids=lambda attack: attack.name)
async def test_strangers_streams_beyond_their_places_are_turned_away(stage: Stage, attack: Attack) -> None:
    away = CONNECTIONS * 10 - MAX_PUBLIC_RPCS // 4
    tally, _good = await attacked(stage.servers["service"], small(attack), stage.wallet, held_to_end=away)
    assert set(tally.ends) == {"8"}
    assert tally.ends["8"] >= away


@pytest.mark.parametrize("server", ["service", "library"])
async def test_the_attackers_connections_are_gone_from_the_server_when_they_hang_up(stage: Stage, server: Server) -> None:
    running = stage.servers[server]
    before = sample(running.process.pid)
    (silent,) = (attack for attack in ATTACKS if attack.window == 0)
    await attacked(running, small(silent), stage.wallet)

    def as_before() -> bool:
        return sample(running.process.pid).files <= before.files

    assert await asyncio.to_thread(eventually, as_before)

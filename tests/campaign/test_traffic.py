"""The long run tells right verdicts from wrong ones: seconds of it, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from campaign.servers import Running, serving
from campaign.traffic import Traffic
from campaign.world import Generation, World
from tests.support.calls import until
from tests.support.jwks_server import JwksServer
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Stage:
    world: World
    running: Running


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    first = Generation.new(0)
    with JwksServer(*first.keys) as issuer:
        world = World(issuer, tmp_path, first, begun=0.0)
        world.versions["library"] = frozenset({"wide"})
        world.write("library", "wide")
        with serving("library", world.settings_of("library")) as running:
            assert eventually(lambda: issuer.fetches > 0)
            yield Stage(world, running)


async def made(stage: Stage) -> Traffic:
    """At least a hundred calls."""
    traffic, stop = Traffic(stage.world, stage.running), asyncio.Event()
    running = asyncio.create_task(traffic.run(100.0, stop))
    await until(lambda: traffic.counts.total() >= 100 or running.done())
    stop.set()
    await running
    return traffic


def kinds_of(traffic: Traffic) -> set[str]:
    """Those with a wrong verdict."""
    return {line.split(", ")[2].partition(":")[0] for line in traffic.wrong}


async def test_every_kind_of_call_gets_a_right_verdict(stage: Stage) -> None:
    traffic = await made(stage)
    assert traffic.wrong == []
    kinds = {kind for kind, _verdict in traffic.counts}
    assert {"good, known", "good, fresh", "cancelled", "expired", "forged", "no token", "malformed", "unknown kid"} <= kinds


async def test_a_good_token_that_is_refused_is_a_wrong_verdict(stage: Stage) -> None:
    stage.world.signing = Generation.new(1)  # never published
    assert {"good", "stream"} <= kinds_of(await made(stage))


async def test_a_wrong_token_that_is_accepted_is_a_wrong_verdict(stage: Stage) -> None:
    stage.world.retired = stage.world.signing  # what is taken for withdrawn is published
    assert "withdrawn key" in kinds_of(await made(stage))


async def test_a_version_of_the_settings_that_is_not_in_use_is_a_wrong_verdict(stage: Stage) -> None:
    stage.world.versions["library"] = frozenset({"narrow"})
    assert kinds_of(await made(stage)) == {"good"}
    stage.world.versions["library"] = frozenset({"narrow", "wide"})  # a reload under way: either is right
    assert (await made(stage)).wrong == []

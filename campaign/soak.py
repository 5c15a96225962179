"""`python -m campaign.soak --seconds N`: all that can happen at once, for long, and SIGTERM in the middle of it at the end.

Nothing may be wrong: no verdict, no good call, no growth of memory, threads and files, no call lost at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import machine
from benchmarks.command import progress
from campaign.attacks import Server
from campaign.flat import Trend, trends
from campaign.picture import Panel, png
from campaign.servers import ROOT, Running, Sample, is_there, sample, serving
from campaign.traffic import OK, Ended, Traffic
from campaign.world import COOLDOWN_S, OUTAGES, Generation, World, until
from tests.support.jwks_server import JwksServer

RESULTS: Final = ROOT / "campaign" / "results"
PER_S: Final = 40.0
OUTAGE_S: Final = 7.0
WAITING: Final[dict[Server, int]] = {"service": 20, "library": 6}
"""Calls in flight at SIGTERM that wait for a key; the library's `max_waiters` is 8."""
_EXIT_S: Final = 30.0
_MIB: Final = 1024 * 1024


@dataclass(slots=True)
class Found:
    """What a run has shown. `faults`: all that must not be."""

    samples: dict[Server, list[Sample]] = field(default_factory=dict)
    counts: dict[Server, Counter[tuple[str, str]]] = field(default_factory=dict)
    in_flight: dict[Server, int] = field(default_factory=dict)
    fetches: int = 0
    faults: list[str] = field(default_factory=list)


async def _trouble(world: World, servers: Sequence[Running], metrics_url: str) -> None:
    """Cycles of a rotation, an outage, reloads before it, in it and after it, and broken settings, until cancelled."""

    async def outage(how: str) -> None:
        await asyncio.sleep(10.0)
        await world.fail(how, OUTAGE_S)

    async def reloads() -> None:
        for pause_s, version in ((4.0, "narrow"), (9.0, "wide"), (7.0, "narrow"), (8.0, "wide")):
            await asyncio.sleep(pause_s)
            for running in servers:
                await world.reload(running, version, metrics_url)
            if pause_s == 7.0:
                await world.break_settings(servers[0], metrics_url)

    for how in itertools.cycle(OUTAGES):
        async with asyncio.TaskGroup() as group:
            group.create_task(world.rotate())
            group.create_task(outage(how))
            group.create_task(reloads())


async def _samples(servers: Sequence[Running], found: Found) -> None:
    """One each second, until cancelled."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for second in itertools.count():
        await asyncio.sleep(max(0.0, begin + second - loop.time()))
        for running in servers:
            found.samples.setdefault(running.name, []).append(sample(running.process.pid))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _end(world: World, servers: Sequence[Running], traffics: Sequence[Traffic], found: Found) -> None:
    """SIGTERM in the middle of it. Calls that wait for a key are in flight for certain: they all have to get their answer."""
    for traffic in traffics:
        traffic.quiet = True  # else callers with unknown kids have used up what may be fetched for those who wait
    await until(lambda: world.is_well)
    await asyncio.sleep(2 * COOLDOWN_S)
    rotated = Generation.new(-1)
    world.issuer.hang()
    world.issuer.keys = (*world.issuer.keys, *rotated.keys)
    waiting = [
        (running, traffic.waiting(rotated.rsa, WAITING[running.name]))
        for running, traffic in zip(servers, traffics, strict=True)
    ]
    await asyncio.sleep(1.0)
    for running, calls in waiting:
        early = [call.result() for call in calls if call.done()]
        if early:
            found.faults.append(f"{running.name}: calls that were to wait for a key ended with {set(early)}")
    for running, traffic in zip(servers, traffics, strict=True):
        traffic.told_to_stop_at = time.monotonic()
        running.process.signal(signal.SIGTERM)
    world.note("SIGTERM")
    await asyncio.sleep(0.5)
    world.issuer.resume()
    for running, calls in waiting:
        ends: list[Ended] = await asyncio.gather(*calls)
        found.in_flight[running.name] = len(ends)
        lost = [end for end in ends if end.verdict != OK]
        if lost:
            found.faults.append(f"{running.name}: {len(lost)} of {len(ends)} calls in flight at SIGTERM were lost: {set(lost)}")


async def _gone(servers: Sequence[Running], found: Found) -> None:
    for running in servers:
        try:
            status = await asyncio.to_thread(running.process.wait, _EXIT_S)
        except subprocess.TimeoutExpired:
            found.faults.append(f"{running.name}: still there {_EXIT_S:g} s after SIGTERM")
            continue
        if status != 0:
            found.faults.append(f"{running.name}: exit status {status}")
        if is_there(running.process.pid):
            found.faults.append(f"{running.name}: its process is still there")
        if "Traceback" in running.process.stderr:
            found.faults.append(f"{running.name}: a traceback in its log: {running.process.stderr[-2000:]}")


async def run(seconds: float, world: World, servers: Sequence[Running], metrics_url: str) -> Found:
    """The run. Raises what nobody expected."""
    say = progress()
    found = Found()
    traffics = [Traffic(world, running) for running in servers]
    stop = asyncio.Event()
    calling = [asyncio.create_task(traffic.run(PER_S, stop)) for traffic in traffics]
    watching = asyncio.create_task(_samples(servers, found))
    troubling = asyncio.create_task(_trouble(world, servers, metrics_url))
    until = world.begun + seconds
    while (left := until - time.monotonic()) > 0:
        done, _others = await asyncio.wait(
            [*calling, watching, troubling], timeout=min(left, 30.0), return_when="FIRST_COMPLETED"
        )
        for task in done:
            task.result()  # none ends by itself: it raises
        made = sum(traffic.counts.total() for traffic in traffics)
        say(f"{made} calls, {sum(len(traffic.wrong) for traffic in traffics)} wrong; {world.events[-1:]}")
    await _cancelled(troubling)
    await _cancelled(watching)
    say("SIGTERM")
    await _end(world, servers, traffics, found)
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*calling)
    await _gone(servers, found)
    for running, traffic in zip(servers, traffics, strict=True):
        found.counts[running.name] = traffic.counts
        found.faults += traffic.wrong[:20]
        if len(traffic.wrong) > 20:
            found.faults.append(f"{running.name}: {len(traffic.wrong)} wrong verdicts in all")
    found.fetches = world.issuer.fetches
    return found


def _judged(found: Found) -> dict[Server, list[Trend]]:
    """The trends; those that are not flat are faults."""
    by_server = {name: trends(samples) for name, samples in found.samples.items()}
    for name, each in by_server.items():
        found.faults += [
            f"{name}: {trend.figure} grew from {trend.early:g} to {trend.late:g}" for trend in each if not trend.is_flat
        ]
    return by_server


def _picture(found: Found, world: World, described: dict[str, str]) -> bytes:
    def panel(title: str, unit: str, figure: str, scale: float) -> Panel:
        names = {"service": "grpc-bearer serve (asyncio)", "library": "grpc.server with the library"}
        lines = {names[name]: [getattr(one, figure) / scale for one in samples] for name, samples in found.samples.items()}
        return Panel(title, unit, lines)

    calls = sum(counts.total() for counts in found.counts.values())
    seconds = max(len(samples) for samples in found.samples.values())
    return png(
        f"{seconds} s: {calls:,} calls, {len(found.faults)} faults",
        f"{described['processor']}, Python {described['Python'].split()[-1]}, grpcio {described['grpcio']}. "
        "Shaded: the issuer fails. Ticks: keys rotate, settings are reloaded.",
        [
            panel("memory", "MiB", "resident", _MIB),
            panel("threads", "", "threads", 1),
            panel("open files", "", "files", 1),
        ],
        world.outages,
        [at for at, text in world.events if not text.startswith("issuer")],
    )


def _report(found: Found, by_server: dict[Server, list[Trend]], world: World, described: dict[str, str]) -> dict[str, Any]:
    return {
        "machine": described,
        "calls": {
            name: {f"{kind}: {verdict}": count for (kind, verdict), count in sorted(counts.items())}
            for name, counts in found.counts.items()
        },
        "in flight at SIGTERM, all answered": found.in_flight,
        "trends": {name: [asdict(trend) for trend in each] for name, each in by_server.items()},
        "fetches": found.fetches,
        "events": world.events,
        "faults": found.faults,
        "samples": {name: [asdict(one) for one in samples] for name, samples in found.samples.items()},
    }


def main() -> int:
    """The exit status: 1 when there was a fault."""
    parser = argparse.ArgumentParser(description="Everything at once, for long.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long, before SIGTERM (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder for soak.json and soak.png (default: campaign/results)"
    )
    options = parser.parse_args()
    described = machine.describe()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        first = Generation.new(0)
        issuer = stack.enter_context(JwksServer(*first.keys))
        world = World(issuer, folder, first)
        servers = []
        names: tuple[Server, ...] = ("service", "library")
        for name in names:
            world.versions[name] = frozenset({"wide"})
            world.write(name, "wide")
            servers.append(stack.enter_context(serving(name, world.settings_of(name))))
        metrics_url = servers[0].process.line("^metrics on ").split()[2]
        found = asyncio.run(run(options.seconds, world, servers, metrics_url))
    by_server = _judged(found)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "soak.png").write_bytes(_picture(found, world, described))
    report = _report(found, by_server, world, described)
    (options.out / "soak.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in report.items() if name not in ("samples", "events")}, indent=1))
    for fault in found.faults:
        print(f"FAULT: {fault}")
    print("written: soak.json and soak.png")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())

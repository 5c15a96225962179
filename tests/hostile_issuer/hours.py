"""What an hour of trouble costs by the default figures: the cache's own decisions, on a clock that is counted up."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from grpc_bearer import CachePolicy, FetchOptions
from grpc_bearer.keys.cache import CacheState, Fetch, Query, decide, failed, started, succeeded
from grpc_bearer.keys.jwks import parse_jwks
from tests.hostile_issuer.troubles import current
from tests.hostile_issuer.world import K1

HOUR_S = 3600.0
TICK_S = 0.25
POLICY = CachePolicy()
HANGS_S = FetchOptions().timeout_s
HEADINGS = ("for an hour", "fetches", "longest time between two")


@dataclass(frozen=True)
class Hour:
    """What goes on all the time. `forged`: tokens with ever-new `kid`s, four a second. Fetches end after `takes_s`."""

    name: str
    fails: bool = True
    takes_s: float = 0.0
    retry_after_s: float | None = None
    forged: bool = False


HOURS = (
    Hour("all is well", fails=False),
    Hour("all is well with the issuer, and forged `kid`s come without a pause", fails=False, forged=True),
    Hour("each fetch fails at once"),
    Hour("each fetch fails at once, and forged `kid`s come without a pause", forged=True),
    Hour("each fetch hangs for its `timeout_s`", takes_s=HANGS_S),
    Hour("429 with `Retry-After: 120`", retry_after_s=120.0),
    Hour("429 with `Retry-After: 86400`", retry_after_s=86_400.0),
)


def fetches_in(hour: Hour) -> list[float]:
    """When fetches begin, in seconds. Without jitter, that is with the longest pauses."""
    keys = parse_jwks(current(K1), POLICY.max_keys)
    state = succeeded(CacheState(), keys, None, 0.0, POLICY, 0.0)
    begun: list[float] = []
    for tick in range(int(HOUR_S / TICK_S)):
        now = tick * TICK_S
        if not state.fetching:
            decision = decide(state, Query(f"forged-{tick}" if hour.forged else "k1", "EdDSA"), now, POLICY)
            if isinstance(decision, Fetch) or now >= state.next_fetch_at:
                state = started(state, decision.kid if isinstance(decision, Fetch) else None, now, POLICY)
                begun.append(now)
        if state.fetching and now >= begun[-1] + hour.takes_s:
            if hour.fails:
                state = failed(state, "as the hour has it", hour.retry_after_s, now, POLICY, 0.0)
            else:
                state = succeeded(state, keys, None, now, POLICY, 0.0)
    return begun


def table() -> str:
    """The hours as Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for hour in HOURS:
        begun = fetches_in(hour)
        longest = max(after - before for before, after in pairwise(begun))
        lines.append((hour.name, str(len(begun)), f"{longest:g} s"))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

"""The campaign: every case over real sockets against a real server with our interceptor, right calls in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from grpc_bearer.errors import ERROR_DOMAIN, OUTCOMES, Reason
from tests.adversary import calls, claims, containers, forms, headers, kinds, published, signatures
from tests.adversary.case import Case, Group, Metadata, subject_of
from tests.adversary.world import World, authenticator
from tests.support.calls import ANSWERS, Client
from tests.support.http2 import answer_to_headers
from tests.support.jwks_server import JwksServer
from tests.support.logs import logged
from tests.support.matrix import METHODS, SERVICE, SERVICES, accessor_or_none, registering
from tests.support.serving import STACKS, Stack, serving

MAX_METADATA: Final = 128 * 1024
"""So that a token too long reaches us: grpc's own limit refuses it sooner."""

_LET_IN_AFTER_S: Final = 5.0
"""A refusal comes at once; a call of a raw client that is let in waits for a message that never comes."""

CLASSES: Final[tuple[Callable[[World], Iterator[Group]], ...]] = (
    headers.none,
    headers.hmac_with_public_key,
    headers.embedded_keys,
    headers.hostile_kids,
    kinds.extensions,
    kinds.types,
    forms.duplicates,
    forms.json_texts,
    forms.utf8,
    forms.base64url_forms,
    containers.other_serialisations,
    containers.bombs,
    claims.wrong_types,
    claims.numeric_dates,
    claims.audiences,
    claims.issuers,
    signatures.ecdsa,
    signatures.eddsa,
    signatures.rsa,
    signatures.flipped,
    published.published,
    calls.authorization,
)


def groups_of(world: World) -> list[Group]:
    """All cases by class, in a fixed order. Tokens are fresh each time, names and expectations are the same."""
    return [group for of_class in CLASSES for group in of_class(world)]


@dataclass(frozen=True)
class Wrong:
    """A verdict that is not the expected one."""

    case: Case
    what: str

    def __str__(self) -> str:
        return f"{self.case.group}: {self.case.name}: {self.what}"


@dataclass
class Result:
    """What a campaign on one stack came to.

    `calls`: RPCs made. `ran`, `should_have_run`: answers of handlers, and those of right calls. `fetches`: of the JWK Set.
    `asked`: requests to the server that tokens name. `leaks`: what of the tokens stands in the log.
    """

    stack: Stack
    groups: list[Group]
    wrong: list[Wrong] = field(default_factory=list)
    calls: int = 0
    ran: int = 0
    should_have_run: int = 0
    fetches: int = 0
    asked: int = 0
    leaks: list[str] = field(default_factory=list)
    log_lines: int = 0

    def wrong_in(self, group: str) -> list[str]:
        """The wrong verdicts of a class."""
        return [str(wrong) for wrong in self.wrong if wrong.case.group == group]


async def attack(stack: Stack, *, choose: Callable[[Case], bool] = lambda _case: True, **of_interceptor: Any) -> Result:
    """Run the campaign, or the cases that are chosen, against a server of this stack, with keys of its own."""
    async with AsyncExitStack() as stopping:
        trap = stopping.enter_context(JwksServer())
        issuer = stopping.enter_context(JwksServer())
        world = await asyncio.to_thread(World, trap.url)
        trap.keys = (world.forger,)
        issuer.body = published.document(world)
        groups = await asyncio.to_thread(groups_of, world)
        result = Result(stack, groups)
        lines = stopping.enter_context(logged())
        auth = stopping.enter_context(authenticator(world, issuer.jwks_uri))
        assert await asyncio.to_thread(auth.warm, 20)
        service = SERVICES[stack](accessor_or_none)
        options = [("grpc.max_metadata_size", MAX_METADATA), ("grpc.absolute_max_metadata_size", MAX_METADATA)]
        target = await stopping.enter_async_context(
            serving(stack, auth, registering(service), options=options, **of_interceptor)
        )
        client = await stopping.enter_async_context(Client(target))
        for index, case in enumerate(case for group in groups for case in group if choose(case)):
            await _try(result, client, target, case, METHODS[index % len(METHODS)])
        result.ran = service.ran
        result.fetches, result.asked = issuer.fetches, len(trap.requests)
    text = "\n".join(line for _level, line in lines)
    result.log_lines = len(lines)
    result.leaks = leaks(text, world, (case for group in groups for case in group))
    return result


async def _try(result: Result, client: Client, target: str, case: Case, method: str) -> None:
    """The right call, the attack twice (the second time, all that is remembered is), and the right call once more."""
    for metadata in (case.neighbour, case.metadata, case.metadata, case.neighbour):
        result.calls += 1
        is_attack = metadata is case.metadata
        if is_attack and case.raw:
            try:
                what = await asyncio.wait_for(asyncio.to_thread(_raw_verdict, target, case), _LET_IN_AFTER_S)
            except (OSError, TimeoutError) as error:
                what = f"no refusal, as of a call that is let in: {type(error).__name__}"
        else:
            reason = case.reason if is_attack else None
            result.should_have_run += 0 if reason else len(ANSWERS[method])
            what = await _verdict(client, method, metadata, reason)
        if what is not None:
            result.wrong.append(Wrong(case, what if is_attack else f"its right neighbour: {what}"))


async def _verdict(client: Client, method: str, metadata: Metadata, reason: Reason | None) -> str | None:
    """What is wrong with the answer; None when nothing is."""
    outcome = await client.call(method, metadata=metadata)
    found = (outcome.code.value[0], outcome.reason, outcome.message if outcome.reason else None)
    if reason is None:
        expected: tuple[int, str | None, str | None] = (0, None, None)
        if found == expected and outcome.subjects != {subject_of(metadata)}:
            return "the handler saw other claims"
    else:
        expected = (int(OUTCOMES[reason].code), str(reason), OUTCOMES[reason].message)
        if found == expected and (outcome.responses or outcome.info is None or outcome.info.domain != ERROR_DOMAIN):
            return "a response, or an ErrorInfo of somebody else"
    return None if found == expected else f"expected {expected[:2]}, answered {found[:2]}"


def _raw_verdict(target: str, case: Case) -> str | None:
    """The same of octets that no gRPC client would send: by the status and the message, which stand readable on the wire."""
    assert case.reason is not None
    sent = [(key.encode(), value if isinstance(value, bytes) else value.encode()) for key, value in case.metadata]
    answer = answer_to_headers(target, f"/{SERVICE}/UnaryUnary", sent)
    if OUTCOMES[case.reason].message.encode() in answer and b"grpc-status\x02%d" % case.code in answer:
        return None
    return f"expected {case.reason}, answered {answer!r}"


def leaks(text: str, world: World, cases: Iterable[Case]) -> list[str]:
    """Cases of which something stands in the log: a part of a token, or a subject."""
    found = [f"the canary stands in the log {text.count(world.canary)} times"] if world.canary in text else []
    for case in cases:
        for _key, value in (*case.metadata, *case.neighbour):
            sent = value if isinstance(value, str) else value.decode("latin-1")
            found += [
                f"{case.group}: {case.name}: a part of it"
                for part in sent.replace(" ", ".").split(".")
                if len(part) > 20 and part in text
            ]
    return found


async def attack_all(stacks: Iterable[Stack] = STACKS) -> dict[Stack, Result]:
    """One stack after the other."""
    return {stack: await attack(stack) for stack in stacks}

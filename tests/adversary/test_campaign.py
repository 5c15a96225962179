"""Forged and odd tokens over real sockets: every one gets its verdict, and the right call next to it its claims."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest

from grpc_bearer.keys.jwks import parse_jwks
from tests.adversary.campaign import Result, attack, groups_of, leaks
from tests.adversary.case import INVALID, Case, bearer
from tests.adversary.published import document, odd
from tests.adversary.world import FETCHES_AT_MOST, World
from tests.support.serving import STACKS, Stack

CLASSES = (
    "alg none",
    "HMAC with the public key",
    "embedded jwk, jku, x5u, x5c",
    "hostile kid",
    "crit",
    "b64",
    "zip",
    "typ confusion",
    "duplicate members",
    "JSON that is none",
    "invalid UTF-8",
    "base64url",
    "JWE",
    "JSON serialisation",
    "nested tokens",
    "size and depth bombs",
    "claims of a wrong type",
    "NumericDate",
    "aud",
    "iss",
    "ECDSA signatures",
    "Ed25519 signatures",
    "Ed25519 keys of small order",
    "RSA signatures",
    "one bit flipped",
    "weak and odd RSA keys",
    "use, key_ops, alg of a key",
    "EC and OKP keys that are none",
    "the authorization entry",
    "other and more entries",
)
SOURCE = re.compile(r"RFC \d{4} (§\d+(\.\d+)*|appendix [A-Z](\.\d+)?)|CVE-\d{4}-\d{4,}")


pytestmark = pytest.mark.timeout(240)  # a whole campaign is in the set-up of the first test: 8 s on two cores at rest


@pytest.fixture(scope="module")
def world() -> World:
    return World("http://127.0.0.1:9")


@pytest.fixture(scope="module")
def cases(world: World) -> list[Case]:
    return [case for group in groups_of(world) for case in group]


@pytest.fixture(scope="module", params=STACKS)
def result(request: pytest.FixtureRequest) -> Result:
    """The campaign against one server of the stack, started once."""
    stack: Stack = request.param
    return asyncio.run(attack(stack))


@pytest.mark.parametrize("name", CLASSES)
def test_every_attack_of_a_class_gets_its_verdict_and_its_right_neighbours_get_their_claims(result: Result, name: str) -> None:
    assert [str(wrong) for wrong in result.wrong if wrong.case.group == name] == []


def test_every_case_was_sent_twice_with_its_neighbour_before_and_after_it(result: Result) -> None:
    assert {group.name for group in result.groups} == set(CLASSES)
    assert result.calls == 4 * sum(len(group.cases) for group in result.groups)


def test_no_handler_ran_but_for_the_right_calls(result: Result) -> None:
    assert result.ran == result.should_have_run > 0


def test_the_server_that_tokens_name_was_never_asked(result: Result) -> None:
    assert result.asked == 0


def test_unknown_kids_cost_no_more_fetches_than_a_cooldown_allows(result: Result) -> None:
    assert 1 <= result.fetches <= FETCHES_AT_MOST


def test_the_log_has_a_line_for_each_refusal_and_nothing_of_any_token(result: Result) -> None:
    refused = sum(case.reason is not None for group in result.groups for case in group)
    assert result.log_lines >= 2 * refused
    assert result.leaks == []


# -- that the campaign is one ----------------------------------------------------------------------------------------------


def test_there_are_over_a_thousand_cases_all_different_each_with_a_neighbour_of_its_own(cases: list[Case]) -> None:
    assert len(cases) > 1_000
    assert [each for each, count in Counter((case.group, case.name) for case in cases).items() if count > 1] == []
    assert len({case.metadata for case in cases}) == len(cases)
    assert [case.name for case in cases if case.neighbour == case.metadata] == []
    assert len({case.neighbour for case in cases}) > 0.95 * len(cases)


def test_every_case_names_the_section_or_the_vulnerability_that_it_comes_from(cases: list[Case]) -> None:
    assert [(case.group, case.name, case.source) for case in cases if not SOURCE.fullmatch(case.source)] == []


def test_every_class_has_what_is_refused(cases: list[Case]) -> None:
    assert {case.group for case in cases if case.reason is not None} == set(CLASSES)


def test_two_campaigns_have_the_same_cases_and_no_key_or_token_in_common(cases: list[Case]) -> None:
    other = World("http://127.0.0.1:9")
    others = [case for group in groups_of(other) for case in group]
    expected = [(case.group, case.name, case.reason, case.source) for case in cases]
    assert [(case.group, case.name, case.reason, case.source) for case in others] == expected
    assert {case.neighbour for case in cases}.isdisjoint(case.neighbour for case in others)


def test_every_odd_key_is_left_out_of_the_set_and_every_right_one_is_in_it(world: World) -> None:
    keys = parse_jwks(document(world), max_keys=100)
    assert {key.kid for key in keys.keys} == {"rsa", "rsa-any", "es256", "es384", "es512", "ed", "cubic"}
    assert len(keys.skipped) == len([*odd(world)]) + len(world.edge)


def test_a_token_in_the_log_would_be_noticed(world: World) -> None:
    token = world.token()
    case = Case("class", "name", bearer(token), INVALID, "RFC 7515 §2", bearer(world.token(world.ed)))
    assert leaks("refused /a.B/C: TOKEN_INVALID: the signature does not verify", world, [case]) == []
    for part in token.split("."):
        assert leaks(f"refused {part}", world, [case]) == ["class: name: a part of it"]
    assert leaks(f"refused {world.canary}-1", world, [case]) == ["the canary stands in the log 1 times"]


@pytest.mark.parametrize("stack", STACKS)
def test_a_server_that_lets_attacks_in_would_be_noticed(stack: Stack) -> None:
    tried: set[str] = set()

    def first_of_its_class(case: Case) -> bool:
        new = case.reason is not None and not case.raw and case.group not in tried
        tried.update({case.group} if new else ())
        return new

    result = asyncio.run(attack(stack, choose=first_of_its_class, mode="report"))
    assert Counter(wrong.case.group for wrong in result.wrong) == dict.fromkeys(CLASSES, 2)
    assert result.ran > result.should_have_run

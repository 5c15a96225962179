"""What a method requires, asked over real sockets: every option x the four RPC kinds x both stacks, allowed and refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from grpc_bearer import Access, Authenticator, ClaimRule, ConfigurationError, Issuer, Policies, Policy, Rule
from tests.support.calls import ANSWERS, Client, Metadata, Outcome
from tests.support.matrix import FORMS, METHODS, SERVICE, SERVICES, Form, accessor_or_none, registering
from tests.support.policies import DEFAULTED, OPTIONS, SILENT
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import AUDIENCE, ISSUER, forged, jwks, key, mint

OK = grpc.StatusCode.OK
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
OTHER = "https://other.example"
LATER = 4_102_444_800  # made when the tests are collected, and used minutes later
each_stack = pytest.mark.parametrize("stack", STACKS)
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def trusting(policies: Policies | None = None) -> Authenticator:
    """`ISSUER` and `OTHER`, by keys given in code."""
    return Authenticator([Issuer(iss, audiences=[AUDIENCE], jwks=jwks(key())) for iss in (ISSUER, OTHER)], policies=policies)


def ruled(policy: Policy) -> Authenticator:
    """All methods of the matrix under one policy."""
    return trusting(Policies(rules=[Rule([f"{SERVICE}/*"], policy)]))


async def each_kind(client: Client, token: str | None = None, *, metadata: Metadata = ()) -> dict[str, Outcome]:
    outcomes = await asyncio.gather(*(client.call(method, token, metadata=metadata) for method in METHODS))
    return dict(zip(METHODS, outcomes, strict=True))


def assert_answered(outcomes: dict[str, Outcome], subject: str) -> None:
    for method, outcome in outcomes.items():
        assert (outcome.code, outcome.texts, outcome.subjects) == (OK, ANSWERS[method], {subject}), (method, outcome.message)


# -- requirements ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A policy, tokens that meet it, and tokens that do not. `scopes`: the facts of the refusal, when a scope is lacking."""

    policy: Policy
    meeting: Sequence[Callable[[], str]]
    lacking: Sequence[Callable[[], str]]
    scopes: dict[str, str] | None = None


def a(**claims: Any) -> Callable[[], str]:
    return lambda: mint(sub="alice", **claims)


def aged(**ages_s: int | None) -> Callable[[], str]:
    """A token with dates so long ago."""

    def made() -> str:
        dates: dict[str, Any] = {name: None if s is None else int(time.time()) - s for name, s in ages_s.items()}
        return mint(sub="alice", **dates)

    return made


def with_claim(name: str = "department", **rule: Any) -> Policy:
    return Policy(claims=(ClaimRule(name, **rule),))


CASES = {
    "scopes": Case(
        Policy(scopes=("a", "b")),
        [a(scope="c b a"), a(scope="a", scp=["b"])],
        [a(scope="a"), a()],
        {"scopes": "a b"},
    ),
    "any_scopes": Case(
        Policy(any_scopes=("a", "b")),
        [a(scope="b"), a(permissions=["a"])],
        [a(scope="c"), a(scope=None)],
        {"any_scopes": "a b"},
    ),
    "scopes and any_scopes": Case(
        Policy(scopes=("a",), any_scopes=("b", "c")),
        [a(scope="a c")],
        [a(scope="a"), a(scope="b c")],
        {"scopes": "a", "any_scopes": "b c"},
    ),
    "any_of": Case(
        with_claim(any_of=("ops", "it")),
        [a(department="it"), a(department=["x", "ops"])],
        [a(department="hr"), a()],
    ),
    "all_of": Case(
        with_claim(all_of=("ops", "it")),
        [a(department=["it", "ops"])],
        [a(department="it"), a(department=[])],
    ),
    "present": Case(
        with_claim(present=True),
        [a(department=""), a(department={})],
        [a()],
    ),
    "a nested claim": Case(
        with_claim("realm_access.roles", any_of=("admin",)),
        [a(realm_access={"roles": ["admin"]})],
        [a(realm_access={"roles": ["user"]}), a(roles="admin")],
    ),
    "issuers": Case(Policy(issuers=(OTHER,)), [a(iss=OTHER)], [a()]),
    "audiences": Case(Policy(audiences=("billing",)), [a(aud=[AUDIENCE, "billing"])], [a()]),
    "max_age_s": Case(
        Policy(max_age_s=60),
        [a(), aged(auth_time=30), aged(iat=600, auth_time=1)],
        [aged(iat=600), aged(auth_time=600), aged(auth_time=None, iat=None)],
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
@each_form
async def test_who_meets_the_policy_is_served(form: Form, case: Case) -> None:
    service = form.service()
    async with serving(form.stack, ruled(case.policy), registering(service)) as target, Client(target) as client:
        for token in case.meeting:
            assert_answered(await each_kind(client, token()), "alice")


@each_case
@each_form
async def test_who_does_not_meet_the_policy_is_denied_and_runs_no_handler(form: Form, case: Case) -> None:
    service = form.service()
    async with serving(form.stack, ruled(case.policy), registering(service)) as target, Client(target) as client:
        outcomes = [
            (method, outcome) for token in case.lacking for method, outcome in (await each_kind(client, token())).items()
        ]
    message = "the bearer token lacks a scope that this method requires"
    challenge = f'Bearer error="insufficient_scope", error_description="{message}", scope="{{}}"'
    for method, outcome in outcomes:
        assert (outcome.code, outcome.responses) == (PERMISSION_DENIED, ()), (method, outcome.message)
        assert outcome.info is not None
        assert outcome.info.domain == "grpc-bearer"
        assert dict(outcome.info.metadata) == (case.scopes or {})
        sent = dict(outcome.trailers).get("www-authenticate")
        if case.scopes is not None:
            assert (outcome.reason, outcome.message) == ("INSUFFICIENT_SCOPE", message)
            assert sent == challenge.format(" ".join(case.scopes.values()))
        else:
            assert outcome.reason == "POLICY_DENIED"
            assert outcome.message == "the caller is not permitted to call this method"
            assert sent is None
    assert service.ran == 0


@each_case
@each_stack
async def test_a_policy_is_asked_only_of_callers_that_are_known(stack: Stack, case: Case) -> None:
    service = SERVICES[stack]()
    async with serving(stack, ruled(case.policy), registering(service)) as target, Client(target) as client:
        for token, reason in ((None, "TOKEN_MISSING"), (forged(), "TOKEN_INVALID"), (mint(exp=1), "TOKEN_EXPIRED")):
            for method, outcome in (await each_kind(client, token)).items():
                assert (outcome.code, outcome.reason) == (UNAUTHENTICATED, reason), method
    assert service.ran == 0


@each_stack
async def test_with_reveal_reasons_off_a_denied_caller_gets_the_bare_code(stack: Stack) -> None:
    policy = Policy(scopes=("a",))
    async with (
        serving(stack, ruled(policy), registering(SERVICES[stack]()), reveal_reasons=False) as target,
        Client(target) as client,
    ):
        outcomes = await each_kind(client, mint())
    assert {(outcome.code, outcome.message, outcome.trailers) for outcome in outcomes.values()} == {
        (PERMISSION_DENIED, "PERMISSION_DENIED", ())
    }


# -- access ------------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[Metadata, str]] = {
    "expired": ((("authorization", f"Bearer {mint(exp=1)}"),), "TOKEN_EXPIRED"),
    "forged": ((("authorization", f"Bearer {forged(exp=LATER)}"),), "TOKEN_INVALID"),
    "malformed": ((("authorization", "Bearer not.a-token"),), "TOKEN_MALFORMED"),
    "two": ((("authorization", f"Bearer {mint()}"), ("authorization", f"Bearer {mint()}")), "TOKEN_MALFORMED"),
    "of another scheme": ((("authorization", "Basic YTpi"),), "TOKEN_MISSING"),
    "empty": ((("authorization", ""),), "TOKEN_MISSING"),
}


@each_form
@pytest.mark.parametrize("context_claims", [False, True])
async def test_a_public_method_looks_at_no_token(form: Form, context_claims: bool) -> None:
    service = form.service(accessor_or_none)
    async with (
        serving(form.stack, ruled(Policy(access=Access.PUBLIC)), registering(service), context_claims=context_claims) as target,
        Client(target) as client,
    ):
        for metadata in ((), *(metadata for metadata, _reason in BAD.values()), (("authorization", f"Bearer {mint()}"),)):
            assert_answered(await each_kind(client, metadata=metadata), "")


@each_form
async def test_an_optional_method_serves_who_sends_nothing_and_knows_who_sends_a_good_token(form: Form) -> None:
    service = form.service(accessor_or_none)
    async with (
        serving(form.stack, ruled(Policy(access=Access.OPTIONAL)), registering(service)) as target,
        Client(target) as client,
    ):
        for _ in range(2):  # whoever came before leaves nothing behind
            assert_answered(await each_kind(client), "")
            assert_answered(await each_kind(client, mint(sub="alice")), "alice")


def attribute_or_none(context: Any) -> Any:
    return context.claims


@each_form
async def test_on_an_optional_method_the_claims_on_the_context_are_none_without_a_token(form: Form) -> None:
    service = form.service(attribute_or_none)
    async with (
        serving(form.stack, ruled(Policy(access=Access.OPTIONAL)), registering(service), context_claims=True) as target,
        Client(target) as client,
    ):
        for _ in range(2):
            assert_answered(await each_kind(client), "")
            assert_answered(await each_kind(client, mint(sub="alice")), "alice")


@pytest.mark.parametrize(("metadata", "reason"), BAD.values(), ids=BAD)
@each_form
async def test_an_optional_method_refuses_a_token_that_is_not_good(form: Form, metadata: Metadata, reason: str) -> None:
    service = form.service(accessor_or_none)
    async with (
        serving(form.stack, ruled(Policy(access=Access.OPTIONAL)), registering(service)) as target,
        Client(target) as client,
    ):
        for method, outcome in (await each_kind(client, metadata=metadata)).items():
            assert (outcome.code, outcome.reason) == (UNAUTHENTICATED, reason), method
    assert service.ran == 0


@each_form
async def test_a_closed_method_serves_nobody(form: Form) -> None:
    service = form.service(accessor_or_none)
    async with (
        serving(form.stack, ruled(Policy(access=Access.DENY)), registering(service)) as target,
        Client(target) as client,
    ):
        for token in (None, mint(), forged()):
            for method, outcome in (await each_kind(client, token)).items():
                assert (outcome.code, outcome.reason) == (PERMISSION_DENIED, "POLICY_DENIED"), method
                assert "www-authenticate" not in dict(outcome.trailers)
    assert service.ran == 0


# -- where policies come from ------------------------------------------------------------------------------------------


@each_stack
async def test_each_method_goes_by_its_own_policy(stack: Stack) -> None:
    policies = Policies(
        rules=[
            Rule([f"{SERVICE}/UnaryStream"], Policy(scopes=("a",))),
            Rule([f"{SERVICE}/StreamUnary"], Policy(access=Access.DENY)),
        ],
        public_methods=[f"/{SERVICE}/UnaryUnary"],
    )
    service = SERVICES[stack](accessor_or_none)
    async with serving(stack, trusting(policies), registering(service)) as target, Client(target) as client:
        verdicts = {
            name: {method: outcome.reason or outcome.code for method, outcome in (await each_kind(client, token)).items()}
            for name, token in {"nothing": None, "a token": mint(), "a scope": mint(scope="a")}.items()
        }
    assert {name: tuple(of.values()) for name, of in verdicts.items()} == {
        "nothing": (OK, "TOKEN_MISSING", "POLICY_DENIED", "TOKEN_MISSING"),
        "a token": (OK, "INSUFFICIENT_SCOPE", "POLICY_DENIED", OK),
        "a scope": (OK, OK, "POLICY_DENIED", OK),
    }


def of_protos(stack: Stack) -> Callable[[Any], None]:
    """Registers the services of `policies.proto`, with handlers that answer with nothing."""

    def answer(_request: bytes, _context: Any) -> bytes:
        return b""

    async def answer_aio(_request: bytes, _context: Any) -> bytes:
        return b""

    handler: Any = grpc.unary_unary_rpc_method_handler(answer if stack == "sync" else answer_aio)
    methods = {
        OPTIONS: ("Plain", "Empty", "Authenticated", "Public", "Optional", "Deny", "Everything"),
        DEFAULTED: ("Inherits", "Replaces", "Empty"),
        SILENT: ("One",),
    }

    def register(server: Any) -> None:
        for service, names in methods.items():
            handlers = dict.fromkeys(names, handler)
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])

    return register


EVERYTHING: dict[str, Any] = {
    "scope": "orders.read orders.write staff",
    "department": ["ops", "support"],
    "realm_access": {"roles": []},
}


@each_stack
async def test_the_options_in_the_protos_hold_with_nothing_said_in_code(stack: Stack) -> None:
    async with serving(stack, trusting(), of_protos(stack)) as target, Client(target) as client:

        async def verdict(method: str, token: str | None) -> Any:
            call: Any = client.channel.unary_unary(f"/policies.v1.{method}")
            metadata = () if token is None else (("authorization", f"Bearer {token}"),)
            try:
                await call(b"", metadata=metadata, timeout=10)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return OK

        tokens = {
            "none": None,
            "plain": mint(scope=None),
            "reads": mint(scope="orders.read", department="ops"),
            "writes": mint(scope="orders.write"),
            "everything": mint(**EVERYTHING),
        }
        expected: dict[str, tuple[Any, ...]] = {
            "MethodsService/Plain": (UNAUTHENTICATED, OK, OK, OK, OK),
            "MethodsService/Empty": (UNAUTHENTICATED, OK, OK, OK, OK),
            "MethodsService/Authenticated": (UNAUTHENTICATED, OK, OK, OK, OK),
            "MethodsService/Public": (OK, OK, OK, OK, OK),
            "MethodsService/Optional": (OK, OK, OK, OK, OK),
            "MethodsService/Deny": (PERMISSION_DENIED,) * 5,
            "MethodsService/Everything": (UNAUTHENTICATED, *(PERMISSION_DENIED,) * 3, OK),
            "DefaultedService/Inherits": (UNAUTHENTICATED, PERMISSION_DENIED, OK, PERMISSION_DENIED, OK),
            "DefaultedService/Replaces": (UNAUTHENTICATED, PERMISSION_DENIED, PERMISSION_DENIED, OK, OK),
            "DefaultedService/Empty": (UNAUTHENTICATED, OK, OK, OK, OK),
            "SilentService/One": (UNAUTHENTICATED, OK, OK, OK, OK),
        }
        actual = {method: tuple([await verdict(method, token) for token in tokens.values()]) for method in expected}
    assert actual == expected


@each_stack
async def test_a_wrong_option_that_is_found_in_a_call_lets_nobody_in(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    def find(_service: str) -> None:
        raise ConfigurationError("of the option")

    service = SERVICES[stack](accessor_or_none)
    policies = Policies(find=find, public_defaults=False)
    async with serving(stack, trusting(policies), registering(service)) as target, Client(target) as client:
        for token in (None, mint()):
            for method, outcome in (await each_kind(client, token)).items():
                assert (outcome.code, outcome.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL"), method
    assert service.ran == 0
    assert f"/{SERVICE}/UnaryUnary: unexpected ConfigurationError in authentication" in caplog.text


@each_stack
async def test_a_method_that_the_server_does_not_have_is_unimplemented_whatever_its_policy(stack: Stack) -> None:
    for policy in (Policy(), Policy(access=Access.DENY), Policy(access=Access.PUBLIC), Policy(access=Access.OPTIONAL)):
        async with serving(stack, ruled(policy), registering(SERVICES[stack]())) as target, Client(target) as client:
            for token in (None, mint()):
                outcome = await client.open(f"/{SERVICE}/NoSuchMethod", token).code()
                assert outcome is grpc.StatusCode.UNIMPLEMENTED

"""What is said of a token: the check that failed, what it expected and found, and what to do next."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grpc_bearer
from grpc_bearer import Access, Authenticator, ConfigurationError, Policies, Policy, Reason
from grpc_bearer.explain import explain
from grpc_bearer.explain_checks import MAX_SHOWN
from grpc_bearer.explain_faults import FAULTS, fault_of
from grpc_bearer.keys.jwks import NoKey
from grpc_bearer.policy.protos import Declared
from tests.support.authenticators import OTHER
from tests.support.bad_tokens import BAD, EVERYTHING, HEADER, MEETING, METHOD, NOW, Bad, a, authenticator, issuer
from tests.support.explained import failed, names, verdict
from tests.support.fuzzing import cases
from tests.support.generated import tokens
from tests.support.tokens import AUDIENCE, SigningKey, claims_set, compact, key

SOURCES: Final = Path(grpc_bearer.__file__).parent
READ: Final = ("credentials", "form", "JOSE header", "claims set", "signature part")
RULES: Final = ("alg", "typ", "claim types", "aud", "exp is there", "lifetime", "exp", "nbf", "iat")
REQUIRED: Final = (
    *("policy: issuers", "policy: audiences", "policy: scopes"),
    *("policy: claim department", "policy: claim x.y", "policy: claim z", "policy: max_age_s"),
)
ORDER: Final = ("method", *READ, "iss", *RULES, "key", "signature", *REQUIRED)


# -- bad tokens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_token_is_explained_by_its_true_cause(bad: Bad) -> None:
    explanation = explain(authenticator(bad.policy, **bad.options), bad.token, bad.method)
    step = failed(explanation)
    assert (step.name, explanation.reason, explanation.detail) == (bad.check, bad.reason, bad.detail)
    assert bad.expected in step.expected
    assert (bad.found or bad.detail) in step.found
    assert explanation.advice is not None
    assert [part for part in bad.says if part not in explanation.advice] == []
    assert (explanation.accepted, explanation.claims) == (False, None)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_the_verdict_is_that_of_the_gate(bad: Bad) -> None:
    auth = authenticator(bad.policy, **bad.options)
    explanation = explain(auth, bad.token, bad.method)
    error = verdict(auth, bad.token, bad.method)
    assert error is not None
    assert (explanation.reason, explanation.detail) == (error.reason, error.detail)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_the_checks_are_listed_in_their_order_whatever_failed(bad: Bad) -> None:
    explanation = explain(authenticator(bad.policy, **bad.options), bad.token, bad.method)
    places = [ORDER.index(name) for name in names(explanation.steps)]
    assert places == sorted(places)
    assert all(step.found for step in explanation.steps if step.outcome != "not reached")


def test_no_claim_value_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for bad in BAD.values():
            explain(authenticator(bad.policy, **bad.options), bad.token, bad.method)
    assert caplog.text == ""


# -- two things wrong --------------------------------------------------------------------------------------------------

PAIRED: Final = replace(EVERYTHING, audiences=("billing",))


@dataclass
class Draft:
    """A good token in the making."""

    header: dict[str, Any] = field(default_factory=lambda: dict(HEADER))
    claims: dict[str, Any] = field(default_factory=lambda: claims_set(NOW, **MEETING, aud=[AUDIENCE, "billing"]))
    spelled: bytes | None = None
    signer: SigningKey = field(default_factory=key)
    bent: Callable[[str], str] = str
    prefix: str = ""
    policy: Policy = PAIRED

    def token(self) -> str:
        token = compact(self.header, self.claims if self.spelled is None else self.spelled, self.signer)
        return self.prefix + self.bent(token)


def claim(name: str, value: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.claims.__setitem__(name, value)


def without(name: str) -> Callable[[Draft], None]:
    return lambda draft: draft.claims.pop(name, None)


def member(name: str, value: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.header.__setitem__(name, value)


def draft_with(name: str, value: Any) -> Callable[[Draft], None]:
    return lambda draft: setattr(draft, name, value)


SPOILED: Final[dict[str, Callable[[Draft], None]]] = {
    "method": draft_with("policy", Policy(Access.DENY)),
    "credentials": draft_with("prefix", "é"),
    "form": draft_with("bent", lambda token: token.replace(".", "~")),
    "JOSE header": member("crit", ["exp"]),
    "claims set": draft_with("spelled", b'{"a":1,"a":1}'),
    "signature part": draft_with("bent", lambda token: f"{token[:-1]}B"),
    "iss": claim("iss", "https://evil.example"),
    "alg": member("alg", "HS256"),
    "typ": member("typ", "x"),
    "claim types": claim("sub", 5),
    "aud": claim("aud", "x"),
    "exp is there": without("exp"),
    "lifetime": claim("iat", NOW - 10**6),
    "exp": claim("exp", NOW - 31),
    "nbf": claim("nbf", NOW + 31),
    "iat": claim("iat", NOW + 31),
    "key": member("kid", "k9"),
    "signature": draft_with("signer", key("forger")),
    "policy: issuers": claim("iss", OTHER),
    "policy: audiences": claim("aud", AUDIENCE),
    "policy: scopes": without("scope"),
    "policy: claim department": without("department"),
    "policy: claim x.y": without("x"),
    "policy: claim z": without("z"),
    "policy: max_age_s": claim("auth_time", 5),
}


@pytest.mark.parametrize("first", SPOILED)
def test_of_two_things_that_are_wrong_the_first_in_the_list_is_what_the_verifier_refuses(first: str) -> None:
    order = list(SPOILED)
    assert order == list(ORDER)
    for second in order[order.index(first) :]:
        draft = Draft()
        SPOILED[second](draft)
        SPOILED[first](draft)  # last, where both are one member
        auth = authenticator(draft.policy, max_lifetime_s=3600)
        explanation = explain(auth, draft.token(), METHOD)
        error = verdict(auth, draft.token(), METHOD)
        assert failed(explanation).name == first, second
        assert error is not None
        assert (explanation.reason, explanation.detail) == (error.reason, error.detail)


# -- good tokens -------------------------------------------------------------------------------------------------------


def test_a_good_token_passes_every_check_and_its_claims_are_shown() -> None:
    explanation = explain(authenticator(PAIRED), Draft().token(), METHOD)
    assert names(explanation.steps) == ORDER
    assert {step.outcome for step in explanation.steps} == {"passed"}
    assert all(step.expected and step.found for step in explanation.steps)
    assert explanation.accepted
    assert (explanation.reason, explanation.detail, explanation.advice) == (None, None, None)
    assert explanation.claims is not None
    assert (explanation.claims["department"], sorted(explanation.claims.scopes)) == ("it", ["a", "b", "c"])
    assert explanation.entry is not None
    assert (explanation.entry.policy, explanation.entry.source) == (PAIRED, "rules[0]")


def test_without_a_method_no_policy_is_asked() -> None:
    explanation = explain(authenticator(Policy(Access.DENY)), a())
    assert (explanation.accepted, explanation.entry) == (True, None)
    assert names(explanation.steps) == (*READ, "iss", *RULES, "key", "signature")


@pytest.mark.parametrize("token", ["", "not a token", a(exp=5)])
def test_a_public_method_looks_at_no_token(token: str) -> None:
    explanation = explain(authenticator(Policy(Access.PUBLIC)), token, METHOD)
    assert (explanation.accepted, explanation.claims) == (True, None)
    assert [(step.name, step.outcome) for step in explanation.steps] == [("method", "passed"), ("token", "not reached")]


def test_spaces_before_a_token_are_the_header_s_own() -> None:
    assert explain(authenticator(), f"  {a()}").accepted  # RFC 6750 §2.1: 1*SP


def test_an_optional_method_takes_a_good_token_as_any_other() -> None:
    explanation = explain(authenticator(Policy(Access.OPTIONAL)), a(sub="alice"), METHOD)
    assert explanation.claims is not None
    assert explanation.claims.sub == "alice"


def test_a_wrong_policy_in_a_proto_is_no_explanation() -> None:
    def broken(_name: str) -> Declared | None:
        raise ConfigurationError("access: wrong")

    with pytest.raises(ConfigurationError, match="access: wrong"):
        explain(Authenticator([issuer()], policies=Policies(find=broken)), a(), METHOD)


def test_what_a_token_says_is_cut_and_a_terminal_does_not_obey_it() -> None:
    token = compact(HEADER | {"typ": "JWT", "kid": "\x1b[2J"}, claims_set(NOW, jti="\x07", **{"\x1b]0;x": "y" * 999}), key())
    for step in explain(authenticator(), token).steps:
        assert step.found.isprintable()
        assert len(step.found) < MAX_SHOWN + 50
    long = explain(authenticator(), a(aud="y" * 999)).steps
    assert next(step for step in long if step.name == "aud").found.endswith("… (1001 characters)")


def test_an_issuer_of_any_audience_expects_none() -> None:
    explanation = explain(authenticator(audiences=(), allow_any_audience=True), a(aud="x"))
    assert next(step for step in explanation.steps if step.name == "aud").expected == "anything"


# -- whatever comes ----------------------------------------------------------------------------------------------------

ALPHABET: Final = "ABCabc019-_~+/=. \n"
AUTH: Final = authenticator(EVERYTHING)


@cases(300)
@given(st.text() | st.text(ALPHABET) | st.lists(st.text(ALPHABET), min_size=3, max_size=3).map(".".join))
def test_any_text_is_explained(text: str) -> None:
    explanation = explain(AUTH, text)
    assert explanation.reason is Reason.TOKEN_MALFORMED
    assert failed(explanation).name in READ


@cases(200)
@given(tokens(key(), "RS256", most_faults=3))
def test_any_token_is_explained_and_judged_as_the_gate_judges_it(token: str) -> None:
    auth = Authenticator([issuer(leeway_s=600)], policies=AUTH.gate.policies)
    for method in (None, METHOD):
        error = verdict(auth, token, method)
        explanation = explain(auth, token, method)
        if error is None:
            assert explanation.accepted
        else:
            assert (explanation.reason, explanation.detail) == (error.reason, error.detail)
            assert failed(explanation).name in ORDER


def test_a_bug_is_refused_as_the_interceptors_refuse_it(caplog: pytest.LogCaptureFixture) -> None:
    text = "secret"

    def stopped() -> float:
        raise RuntimeError(text)

    explanation = explain(Authenticator([issuer()], clock=stopped), a())
    assert (explanation.reason, explanation.detail) == (Reason.INTERNAL, "unexpected RuntimeError")
    assert explanation.advice == "this is a bug of grpc-bearer's: the log has the place"
    assert "secret" not in caplog.text


# -- every refusal has its advice --------------------------------------------------------------------------------------

RAISERS: Final = {"malformed", "invalid", "missing", "denied", "keys_unavailable", "AuthError"}
PLACEHOLDERS: Final = {"what": "claims set", "error": "not JSON", "name": "exp", "rule.name": "a.b"}


def details() -> Iterator[str]:
    """The detail of every refusal in the library's sources, with something in the place of what is filled in."""
    yield from (why.value for why in NoKey)
    for path in sorted(SOURCES.rglob("*.py")):
        if path.name in ("errors.py", "status.py"):  # they define the raisers, and make trailers of all reasons
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISERS:
                detail = node.args[node.func.id == "AuthError"]
                if not ast.unparse(detail).endswith(".value"):  # of NoKey
                    yield _text(detail)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.FormattedValue):
        return PLACEHOLDERS[ast.unparse(node.value)]
    assert isinstance(node, ast.Constant), ast.unparse(node)
    return str(node.value)


DETAILS: Final = sorted(set(details()))


def test_no_advice_is_for_a_refusal_that_is_no_more() -> None:
    assert set(FAULTS) - set(DETAILS) == set()
    assert len(DETAILS) > len(FAULTS)


@pytest.mark.parametrize("detail", DETAILS)
def test_every_refusal_has_its_check_and_advice(detail: str) -> None:
    check = fault_of(detail).check
    assert check in ORDER or check == "policy: claim a.b"


def test_the_library_does_not_load_explanations_before_they_are_asked_for() -> None:
    code = "import sys, grpc_bearer, grpc_bearer.aio; print([name for name in sys.modules if 'explain' in name])"
    environment = {"PYTHONPATH": str(SOURCES.parent)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

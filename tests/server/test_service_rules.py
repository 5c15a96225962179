"""Rules, report mode and metrics of the service as its users run it: real processes, real calls, a real scrape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_bearer.v1.identity_pb2 import Identity, WatchIdentityResponse
from tests.support.calls import bearer
from tests.support.processes import PATIENCE_S
from tests.support.scraping import Samples, scrape
from tests.support.service_client import IDENTITY_SERVICE, SERVING, Client, Running, end_of, reason_of, running
from tests.support.tokens import ISSUER, forged, mint
from tests.support.waiting import eventually

WHO_AM_I = f"/{IDENTITY_SERVICE}/WhoAmI"
WATCH = f"/{IDENTITY_SERVICE}/WatchIdentity"
RULES = f"""
[[rules]]
methods = ["{WHO_AM_I}"]
scopes = ["profile"]
claims = [{{ name = "department", any_of = ["ops", "support"] }}]

[[rules]]
methods = ["{IDENTITY_SERVICE}/*"]
access = "optional"
"""


@dataclass(frozen=True)
class Measured:
    """A running service, and where its metrics are."""

    running: Running
    url: str

    @property
    def client(self) -> Client:
        return self.running.client

    def verdicts(self) -> Samples:
        """The counts by (enforced, method, reason)."""
        return {key[1:]: value for key, value in scrape(self.url).items() if key[0] == "grpc_bearer_verdicts_total"}


@contextmanager
def measured(folder: Path, **variables: str) -> Iterator[Measured]:
    with running(folder, of_issuer=RULES, METRICS__LISTEN="127.0.0.1:0", **variables) as one:
        yield Measured(one, one.service.process.line("^metrics on ").split()[2])


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    with measured(tmp_path_factory.mktemp("ruled"), SERVER__STRICT="true") as one:
        yield one


def good(**claims: Any) -> str:
    """A token that the rules let call WhoAmI, unless the claims say otherwise."""
    rights: dict[str, Any] = {"scope": "email profile", "department": "ops"}
    return mint(**(rights | claims))


@pytest.mark.parametrize(
    ("claims", "code", "reason"),
    [
        ({"scope": "email"}, grpc.StatusCode.PERMISSION_DENIED, "INSUFFICIENT_SCOPE"),
        ({"scope": None}, grpc.StatusCode.PERMISSION_DENIED, "INSUFFICIENT_SCOPE"),
        ({"department": "sales"}, grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED"),
        ({"department": None}, grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED"),
        ({"aud": "elsewhere"}, grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID"),
    ],
)
def test_a_rule_of_the_settings_refuses_a_token_that_lacks_what_it_requires(
    claims: dict[str, Any], code: grpc.StatusCode, reason: str, ruled: Measured
) -> None:
    call = ruled.client.asking(good(**claims))
    assert end_of(call)[0] is code
    assert reason_of(call) == reason
    assert ruled.client.who_am_i(good()).subject == "user-1"


def test_a_refused_scope_is_named_to_the_caller(ruled: Measured) -> None:
    call = ruled.client.asking(good(scope="email"))
    assert end_of(call)[1] == "the bearer token lacks a scope that this method requires"
    assert 'scope="profile"' in dict(call.trailing_metadata())["www-authenticate"]


def test_an_optional_method_answers_without_a_token_and_refuses_a_bad_one(ruled: Measured) -> None:
    assert next(ruled.client.watch_identity(None)) == WatchIdentityResponse()
    assert next(ruled.client.watch_identity(mint(scope=None))).identity.subject == "user-1"
    with pytest.raises(grpc.RpcError) as refusal:
        next(ruled.client.watch_identity(forged()))
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_public_methods_stay_public_beside_rules_and_strict(ruled: Measured) -> None:
    assert ruled.client.health() == SERVING


def call_unknown(client: Client, method: str, token: str | None) -> grpc.StatusCode:
    """How a call of a method ends that the service does not have."""
    call: Any = client.channel.unary_unary(method)
    with pytest.raises(grpc.RpcError) as end:
        call(b"", metadata=bearer(token), timeout=PATIENCE_S)
    return end.value.code()


def test_metrics_count_verdicts_and_callers_cannot_make_up_labels(ruled: Measured) -> None:
    before = ruled.verdicts()
    assert ruled.client.who_am_i(good()).subject == "user-1"
    assert [reason_of(ruled.client.asking(token)) for token in (forged(), forged(), good(scope=""))]
    next(ruled.client.watch_identity(None))
    ruled.client.health()
    for number in range(3):
        for method in ("/made.up.Service/Method", WHO_AM_I, "/grpc.health.v1.Health/Check"):
            assert call_unknown(ruled.client, f"{method}{number}", good()) is grpc.StatusCode.UNIMPLEMENTED
    after = ruled.verdicts()
    counted = {labels: after[labels] - before.get(labels, 0) for labels in after if after[labels] != before.get(labels, 0)}
    assert counted == {
        ("yes", WHO_AM_I, "OK"): 1,
        ("yes", WHO_AM_I, "TOKEN_INVALID"): 2,
        ("yes", WHO_AM_I, "INSUFFICIENT_SCOPE"): 1,
        ("yes", WATCH, "OK"): 1,
    }


def test_metrics_tell_of_keys_and_settings(ruled: Measured) -> None:
    samples = scrape(ruled.url)
    assert samples["grpc_bearer_issuer_ready", ISSUER] == samples["grpc_bearer_issuer_keys", ISSUER] == 1
    assert samples["grpc_bearer_issuer_stale", ISSUER] == samples["grpc_bearer_issuer_fetch_failures", ISSUER] == 0
    assert samples["grpc_bearer_issuer_keys_age_seconds", ISSUER] >= 0
    assert samples["grpc_bearer_settings_version",] == 1
    assert samples["grpc_bearer_settings_reload_failed",] == 0


def test_in_report_mode_every_call_goes_on_and_everything_says_that_nothing_is_enforced(tmp_path: Path) -> None:
    with measured(tmp_path, SERVER__MODE="report") as one:
        assert "AUTHENTICATION IS NOT ENFORCED: mode is report, every call goes on" in one.running.service.process.lines
        stderr = one.running.service.process.stderr
        assert "WARNING grpc_bearer: AUTHENTICATION IS NOT ENFORCED: mode is 'report', every call goes on" in stderr
        assert one.client.who_am_i(None) == one.client.who_am_i(forged()) == Identity()
        assert one.client.who_am_i(good(scope="")) == Identity()  # verified, and not permitted: claims are for those who are
        assert one.client.who_am_i(good()).subject == "user-1"
        for number in range(2):
            assert call_unknown(one.client, f"/made.up.Service/Method{number}", good()) is grpc.StatusCode.UNIMPLEMENTED
            assert call_unknown(one.client, f"/made.up.Service/Method{number}", None) is grpc.StatusCode.UNIMPLEMENTED
        assert one.verdicts() == {
            ("no", WHO_AM_I, "TOKEN_MISSING"): 1,
            ("no", WHO_AM_I, "TOKEN_INVALID"): 1,
            ("no", WHO_AM_I, "INSUFFICIENT_SCOPE"): 1,
            ("no", WHO_AM_I, "OK"): 1,
        }
        said = f"INFO grpc_bearer: would refuse (mode is report) {WHO_AM_I}: TOKEN_INVALID: the signature does not verify"
        assert eventually(lambda: said in one.running.service.process.stderr)

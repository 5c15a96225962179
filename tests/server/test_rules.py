"""[[rules]]: what they come to, and one line with its place for each that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpc_bearer import Access, ClaimRule, Policy, Streams
from grpc_bearer_server.assembly import IDENTITY_SERVICE, policies_of
from grpc_bearer_server.errors import one_line_errors
from grpc_bearer_server.loading import load
from grpc_bearer_server.settings import RuleSettings

OWN = IDENTITY_SERVICE
P = "GRPC_BEARER_RULES__"
WHO_AM_I = f"{OWN}/WhoAmI"
WATCH = f"{OWN}/WatchIdentity"
ONE = f'[[rules]]\nmethods = ["{WHO_AM_I}"]\n'
"""The beginning of a right one."""
CLAIM = "\n[[rules.claims]]\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def policy(path: Path | None, method: str) -> Policy:
    return policies_of(load(path)).for_method(f"/{method}").policy


def test_every_field_of_a_rule_reaches_the_policy_of_its_methods(path: Path) -> None:
    path.write_text(f"""
[[rules]]
methods = ["{WHO_AM_I}", "/{WATCH}"]
scopes = ["a", "b"]
any_scopes = ["c"]
claims = [{{ name = "realm_access.roles", any_of = ["x"], all_of = ["y"] }}, {{ name = "email", present = true }}]
issuers = ["https://issuer.example"]
audiences = ["orders"]
max_age_s = 60
stream_grace_s = 5
""")
    expected = Policy(
        scopes=("a", "b"),
        any_scopes=("c",),
        claims=(ClaimRule("realm_access.roles", ("x",), ("y",)), ClaimRule("email", present=True)),
        issuers=("https://issuer.example",),
        audiences=("orders",),
        max_age_s=60,
        stream_grace_s=5,
    )
    assert policy(path, WHO_AM_I) == policy(path, WATCH) == expected
    assert set(RuleSettings.model_fields) - {"methods"} == set(Policy.__dataclass_fields__)


@pytest.mark.parametrize(
    ("line", "expected"),
    [(f'access = "{access}"', Policy(access=access)) for access in Access]
    + [('streams = "finish"', Policy(streams=Streams.FINISH)), ("", Policy())],
)
def test_access_and_streams_are_words(line: str, expected: Policy, path: Path) -> None:
    path.write_text(ONE + line)
    assert policy(path, WHO_AM_I) == expected


def test_a_rule_for_a_method_wins_over_one_for_the_rest_of_its_service_and_that_over_protos_and_defaults(path: Path) -> None:
    path.write_text(
        f'[server]\npublic_methods = ["/{WATCH}"]\n'
        f'[[rules]]\nmethods = ["{OWN}/*"]\nscopes = ["rest"]\n'
        '[[rules]]\nmethods = ["grpc.health.v1.Health/Watch"]\naccess = "deny"\n'
        f'{ONE}scopes = ["one"]\n'
    )
    assert policy(path, WHO_AM_I) == Policy(scopes=("one",))
    assert policy(path, WATCH) == Policy(scopes=("rest",))
    assert policy(path, "grpc.health.v1.Health/Watch") == Policy(access=Access.DENY)
    assert policy(path, "grpc.health.v1.Health/Check") == Policy(access=Access.PUBLIC)


def test_rules_come_from_variables(environment: pytest.MonkeyPatch) -> None:
    for name, value in {
        "0__METHODS": f"{WHO_AM_I}, {WATCH}",
        "0__SCOPES": "a,b",
        "0__CLAIMS__0__NAME": "department",
        "0__CLAIMS__0__ANY_OF": "ops,support",
        "0__CLAIMS__1__NAME": "email",
        "0__CLAIMS__1__PRESENT": "true",
        "0__MAX_AGE_S": "60",
        "1__METHODS": "grpc.health.v1.Health/*",
        "1__ACCESS": "deny",
    }.items():
        environment.setenv(P + name, value)
    claims = (ClaimRule("department", ("ops", "support")), ClaimRule("email", present=True))
    expected = Policy(scopes=("a", "b"), claims=claims, max_age_s=60)
    assert policy(None, WHO_AM_I) == policy(None, WATCH) == expected
    assert policy(None, "grpc.health.v1.Health/Check") == Policy(access=Access.DENY)


def test_a_variable_overrides_one_member_of_one_rule_of_the_file(path: Path, environment: pytest.MonkeyPatch) -> None:
    path.write_text(
        f'{ONE}scopes = ["a"]\nclaims = [{{ name = "department", any_of = ["ops"] }}, {{ name = "b", present = true }}]'
    )
    environment.setenv(P + "0__SCOPES", "c")
    environment.setenv(P + "0__CLAIMS__0__ANY_OF", "sales")
    claims = (ClaimRule("department", ("sales",)), ClaimRule("b", present=True))
    assert policy(path, WHO_AM_I) == Policy(scopes=("c",), claims=claims)


def test_strict_is_content_with_our_own_services_and_closes_all_others(path: Path) -> None:
    path.write_text("[server]\nstrict = true\n")
    assert policy(path, WHO_AM_I) == Policy()
    assert policy(path, "grpc.health.v1.Health/Check") == Policy(access=Access.PUBLIC)
    assert policy(path, "other.v1.OtherService/Do") == Policy(access=Access.DENY)


UNKNOWN_SERVICE = "its generated module has to be imported before"
WRONG = {
    # methods
    f'[[rules]]\nmethods = ["{OWN}/WhoIAm"]': f"rules[0]: methods: '{OWN}/WhoIAm': {OWN} "
    "has no such method; did you mean WhoAmI?",
    f'{ONE}[[rules]]\nmethods = ["{OWN}/X"]': f"rules[1]: methods: '{OWN}/X': {OWN} "
    "has no such method",
    '[[rules]]\nmethods = ["grpc_bearer.v1.IdentityServce/WhoAmI"]': "rules[0]: methods: "
    f"'grpc_bearer.v1.IdentityServce/WhoAmI': there is no such service; did you mean {OWN}?; {UNKNOWN_SERVICE}",
    '[[rules]]\nmethods = ["x.Y/*"]': f"rules[0]: methods: 'x.Y/*': there is no such service; {UNKNOWN_SERVICE}",
    '[[rules]]\nmethods = ["*"]': "rules[0]: methods: '*' is not a full method name; write it as '/package.Service/Method'",
    '[[rules]]\nmethods = ["grpc_bearer.v1.*"]': "rules[0]: methods: 'grpc_bearer.v1.*' is not a full method name; ",
    f'[[rules]]\nmethods = ["{OWN}/Who*"]': f"rules[0]: methods: '{OWN}/Who*' is not a full method name",
    f'[[rules]]\nmethods = "{WHO_AM_I}/"': f"rules[0]: methods: '{WHO_AM_I}/' is not a full method name",
    "[[rules]]\nmethods = []": "PATH: rules[0].methods: tuple should have at least 1 item",
    "[[rules]]": f"PATH: rules[0].methods: is missing; set it there or as {P}0__METHODS",
    f"{ONE}{ONE}": f"rules[1]: '{WHO_AM_I}' has a rule already, in rules[0]; merge the two",
    f'[[rules]]\nmethods = ["{OWN}/*"]\n' * 2: f"rules[1]: '{OWN}/*' has a rule already, in rules[0]",
    f'[server]\npublic_methods = ["/{WHO_AM_I}"]\n{ONE}': f"public_methods: '/{WHO_AM_I}' has a rule already, in rules",
    # requirements
    f'{ONE}access = "public"\nscopes = ["a"]': "PATH: rules[0]: access: public and scopes contradict each other: ",
    f'{ONE}access = "optional"{CLAIM}name = "a"\npresent = true': "PATH: rules[0]: access: optional and claims contradict ",
    f'{ONE}access = "deny"\nmax_age_s = 1': "PATH: rules[0]: access: deny and max_age_s contradict each other",
    f'{ONE}access = "admin"': "PATH: rules[0].access: input should be 'authenticated', 'public', 'optional' or 'deny'",
    f'{ONE}scopes = ["a b"]': "PATH: rules[0]: scopes: 'a b' is no scope; list scopes one by one, without spaces or quotes",
    f"{ONE}max_age_s = 0": "PATH: rules[0]: max_age_s: expected a number of seconds above 0",
    f"{ONE}stream_grace_s = -1": "PATH: rules[0]: stream_grace_s: expected a number of seconds, 0 or more",
    f'{ONE}stream_grace_s = 1\nstreams = "finish"': "PATH: rules[0]: stream_grace_s: goes with streams = terminate only",
    f'{ONE}scpes = ["a"]': "PATH: rules[0].scpes: no such setting; did you mean scopes?",
    # rules for claims
    f"{ONE}{CLAIM}present = true": f"PATH: rules[0].claims[0].name: is missing; set it there or as {P}0__CLAIMS__0__NAME",
    f'{ONE}{CLAIM}name = "department"': "PATH: rules[0]: claims: department: requires nothing; give any_of, all_of or present",
    f'{ONE}{CLAIM}name = "a..b"\npresent = true': "PATH: rules[0]: claims: name is missing, or has an empty part ",
    f'{ONE}{CLAIM}name = "a"\nanyof = ["b"]': "PATH: rules[0].claims[0].anyof: no such setting; did you mean any_of?",
    f'{ONE}{CLAIM}name = "a"\nany_of = [1]': "PATH: rules[0].claims[0].any_of[0]: input should be a valid string",
    # lists that are none
    f'[rules]\nmethods = ["{WHO_AM_I}"]': f"PATH: rules: is a list: write [[rules]] in the file, and number the elements in "
    f"variables: {P}0__METHODS",
    f'{ONE}[rules.claims]\nname = "a"': "PATH: rules[0].claims: is a list: write [[rules.claims]] in the file, and number the "
    f"elements in variables: {P}0__CLAIMS__0__NAME",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_rule_is_one_line_with_its_place_and_exit_status_2(
    text: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(text)
    with pytest.raises(SystemExit) as end, one_line_errors():
        policies_of(load(path))
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.replace(str(path), "PATH").startswith(f"grpc-bearer: {WRONG[text]}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("METHODS", f"rules: is a list: write [[rules]] in the file, and number the elements in variables: {P}0__METHODS"),
        ("0__METHOD", f"{P}0__METHOD: no such setting; did you mean methods?"),
        ("0__ACCESS", f"{P}0__ACCESS: input should be 'authenticated', 'public', 'optional' or 'deny'"),
        ("0__CLAIMS__0__NME", f"{P}0__CLAIMS__0__NME: no such setting; did you mean name?"),
        ("0__CLAIMS__NAME", "rules[0].claims: is a list: write [[rules.claims]] in the file, and number the elements in "),
        ("0_METHODS", "rules: is a list: write [[rules]] in the file, and number the elements in variables: "),
    ],
)
def test_a_wrong_variable_of_a_rule_is_one_line_that_names_it(
    name: str, said: str, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv(P + "0__METHODS", WHO_AM_I)
    environment.setenv(P + "0__CLAIMS__0__NAME", "department")
    if name in ("METHODS", "0__CLAIMS__NAME"):
        environment.delenv(P + "0__CLAIMS__0__NAME")
    environment.setenv(P + name, "a")
    with pytest.raises(SystemExit) as end, one_line_errors():
        load(None)
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert f"grpc-bearer: {said}" in err

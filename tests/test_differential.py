"""Our verifier against `jwt.decode` with the same settings: what we accept it accepts, with the same claims.

The other way round it is not so, and that is why there is a parser of our own: the second half lists what PyJWT accepts and we
refuse. Measured on PyJWT 2.13 to 2.15.1; a row that stops to hold says so by failing.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jwt
import pytest
from hypothesis import given, seed
from jwt.algorithms import OKPAlgorithm, get_default_algorithms
from packaging.version import Version

from grpc_bearer import Authenticator, Claims, Issuer, Reason
from grpc_bearer.keys.jwks import SUPPORTED_ALGORITHMS, load_key, parse_jwks
from tests.support.fuzzing import cases
from tests.support.generated import BASE64URL, tokens
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, base64url, claims_set, compact, key, mint, new_key
from tests.support.verdicts import authenticate, refusal, refused

PYJWT = Version(jwt.__version__)
LEEWAY_S = 600.0
"""As wide as may be: the two verdicts come one after the other, and no generated date is within minutes of a limit."""

NAMES = [*sorted(SUPPORTED_ALGORITHMS), "Ed25519"]


@pytest.fixture(scope="module", autouse=True)
def pyjwt_knows_the_newer_name_of_eddsa() -> Iterator[None]:
    jwt.register_algorithm("Ed25519", OKPAlgorithm())
    yield
    jwt.unregister_algorithm("Ed25519")


def signer_of(name: str) -> SigningKey:
    return key("k1", "EdDSA" if name == "Ed25519" else name)


def ours(*jwks: dict[str, Any]) -> Authenticator:
    published = {"keys": list(jwks)}
    return Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], algorithms=NAMES, jwks=published, leeway_s=LEEWAY_S)])


def by_pyjwt(token: str, with_key: Any) -> dict[str, Any]:
    """The claims as PyJWT reads them, with the settings of `ours`. Raises what PyJWT raises."""
    settings: dict[str, Any] = {"audience": [AUDIENCE], "issuer": ISSUER, "leeway": LEEWAY_S, "options": {"require": ["exp"]}}
    claims: dict[str, Any] = jwt.decode(token, with_key, algorithms=NAMES, **settings)
    return claims


def thawed(value: Any) -> Any:
    """Claims as the plain JSON data that they were frozen from."""
    if isinstance(value, Mapping):
        return {name: thawed(member) for name, member in value.items()}
    return [thawed(element) for element in value] if isinstance(value, tuple) else value


def assert_same(claims: Claims, payload: dict[str, Any]) -> None:
    # As text, because 1, 1.0 and True are equal to Python.
    assert json.dumps(thawed(claims), sort_keys=True) == json.dumps(payload, sort_keys=True)
    for name in ("iss", "exp", "sub", "nbf", "iat", "jti", "client_id"):
        assert getattr(claims, name) == payload.get(name)
    assert list(claims.aud) == ([payload["aud"]] if isinstance(payload["aud"], str) else payload["aud"])


# -- what we accept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_whatever_we_accept_pyjwt_accepts_with_the_same_claims(name: str) -> None:
    signer = signer_of(name)
    # Without an `alg` an RSA key is for all six algorithms: what the header names is then all that decides.
    auth = ours(signer.jwk(alg=None))
    verdicts: Counter[bool] = Counter()

    @seed(NAMES.index(name))
    @cases(75)
    @given(tokens(signer, name, most_faults=2))
    def agree(token: str) -> None:
        accepted = refusal(lambda: authenticate(auth, token)) is None
        verdicts[accepted] += 1
        if accepted:
            assert_same(authenticate(auth, token), by_pyjwt(token, signer.private_key.public_key()))

    agree()
    assert min(verdicts[True], verdicts[False]) >= 10  # else the above would say nothing


@pytest.mark.parametrize("name", NAMES)
def test_a_right_token_is_accepted_by_both_however_it_is_spelled(name: str) -> None:
    signer = signer_of(name)
    auth = ours(signer.jwk())

    @seed(NAMES.index(name))
    @cases(25)
    @given(tokens(signer, name, most_faults=0))
    def accepted(token: str) -> None:
        assert_same(authenticate(auth, token), by_pyjwt(token, signer.private_key.public_key()))

    accepted()


def test_an_ecdsa_signature_has_a_second_spelling_that_both_accept() -> None:
    # (r, n - s) for (r, s): so neither a token's text nor its hash is a key for a list of revoked tokens.
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signer = signer_of("ES256")
    token = mint(signer)
    signing_input, _, signature = token.rpartition(".")
    octets = base64.urlsafe_b64decode(signature + "==")
    s = order - int.from_bytes(octets[32:], "big")
    second = f"{signing_input}.{base64url(octets[:32] + s.to_bytes(32, 'big'))}"
    assert second != token
    assert_same(authenticate(ours(signer.jwk()), second), by_pyjwt(second, signer.private_key.public_key()))


def test_pyjwt_drops_the_fraction_of_exp_and_so_refuses_up_to_a_second_earlier() -> None:
    # The one place where we are the wider of the two: RFC 7519 §2 allows fractions, so ours count.
    second = math.floor(time.time())
    token = mint(now=second, exp=second + 0.75)
    issuer = Issuer(ISSUER, audiences=[AUDIENCE], jwks={"keys": [key().jwk()]}, leeway_s=0)
    assert authenticate(Authenticator([issuer], clock=lambda: second + 0.5), token).exp == second + 0.75
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(token, key().private_key.public_key(), algorithms=["RS256"], audience=AUDIENCE)


# -- what PyJWT accepts and we refuse: tokens --------------------------------------------------------------------------

HEADER = {"alg": "RS256", "kid": "k1", "typ": "at+jwt"}


def payload(**literals: str) -> bytes:
    """A right claims set with further members, whose values are spelled as given."""
    further = "".join(f',"{name}":{literal}' for name, literal in literals.items())
    right = json.dumps({name: value for name, value in claims_set().items() if name not in literals})
    return f"{right[:-1]}{further}}}".encode()


def signed(header: Any = HEADER, claims: Any = None) -> str:
    return compact(header, payload() if claims is None else claims, key())


def respelled(position: int, spell: Callable[[str], str]) -> str:
    """A token of which one part is base64url of another spelling, signed as it is spelled."""
    octets = [json.dumps(HEADER).encode(), payload(x='"\u00ff\u00ff\u00ff"')]  # base64url of these has a "_"
    parts = [base64url(text + b" " * ((1 - len(text)) % 3)) for text in octets]  # one octet over: bits to spare
    if position < 2:
        parts[position] = spell(parts[position])
    signature = base64url(key().sign(".".join(parts).encode()))  # 256 octets: one over, too
    return ".".join([*parts, spell(signature) if position == 2 else signature])


def padded(part: str) -> str:
    return f"{part}=="


def with_spare_bits(part: str) -> str:
    return part[:-1] + BASE64URL[BASE64URL.index(part[-1]) + 1]


def in_the_standard_alphabet(part: str) -> str:
    assert "_" in part
    return part.replace("-", "+").replace("_", "/")


CREDENTIALS = "bearer credentials are not well-formed"
COMPACT = "not a compact JWS: three non-empty base64url parts"
CANONICAL = "base64url is not canonical"
MALFORMED: dict[str, tuple[Callable[[], str], str]] = {
    "exp is a string": (lambda: signed(claims=payload(exp=f'"{int(time.time()) + 60}"')), "exp is not a NumericDate"),
    "nbf is a string": (lambda: signed(claims=payload(nbf='"1"')), "nbf is not a NumericDate"),
    "iat is a string": (lambda: signed(claims=payload(iat='"1"')), "iat is not a NumericDate"),
    "nbf is a boolean": (lambda: signed(claims=payload(nbf="true")), "nbf is not a NumericDate"),
    "iat is a boolean": (lambda: signed(claims=payload(iat="false")), "iat is not a NumericDate"),
    "nbf is negative": (lambda: signed(claims=payload(nbf="-1")), "nbf is not a NumericDate"),
    "exp is beyond all calendars": (lambda: signed(claims=payload(exp="1e300")), "exp is not a NumericDate"),
    "a claim is NaN": (lambda: signed(claims=payload(x="NaN")), "claims set: NaN or Infinity in JSON"),
    "a claim is Infinity": (lambda: signed(claims=payload(x="-Infinity")), "claims set: NaN or Infinity in JSON"),
    "a claim overflows": (lambda: signed(claims=payload(x="1e400")), "claims set: JSON number out of range"),
    "the claims are UTF-16": (lambda: signed(claims=payload().decode().encode("utf-16")), "claims set: JSON is not UTF-8"),
    "the claims are UTF-16-LE": (lambda: signed(claims=payload().decode().encode("utf-16-le")), "claims set: not JSON"),
    "the claims are UTF-32": (lambda: signed(claims=payload().decode().encode("utf-32-be")), "claims set: not JSON"),
    "the claims have a byte order mark": (lambda: signed(claims=b"\xef\xbb\xbf" + payload()), "claims set: not JSON"),
    "the header is UTF-16": (lambda: signed(json.dumps(HEADER).encode("utf-16")), "JOSE header: JSON is not UTF-8"),
    "a surrogate, encoded": (
        lambda: signed(claims=payload(x='"?"').replace(b"?", b"\xed\xa0\x80")),
        "claims set: JSON is not UTF-8",
    ),
    "a surrogate, escaped": (lambda: signed(claims=payload(x='"\\ud800"')), "claims set: lone surrogate in JSON"),
    "a claim twice": (lambda: signed(claims=payload(x="1").replace(b'"x"', b'"x":0,"x"')), "claims set: duplicate JSON member"),
    "alg twice": (lambda: signed(b'{"alg":"none",' + json.dumps(HEADER).encode()[1:]), "JOSE header: duplicate JSON member"),
    "too deep": (lambda: signed(claims=payload(x="[" * 40 + "]" * 40)), "claims set: JSON is too deep"),
    "too long": (lambda: mint(x="x" * 16_384), "token too long"),
    "typ is a number": (lambda: signed(HEADER | {"typ": 5}), "JOSE header: typ is not a string"),
    "typ is null": (lambda: signed(HEADER | {"typ": None}), "JOSE header: typ is not a string"),
    "kid is empty": (lambda: signed(HEADER | {"kid": ""}), "JOSE header: kid is not a string of 1 to 512 characters"),
    "kid is long": (lambda: signed(HEADER | {"kid": "k" * 513}), "JOSE header: kid is not a string of 1 to 512 characters"),
    "b64": (lambda: signed(HEADER | {"b64": True}), "JOSE header: b64 is not allowed in a JWT"),
    "crit": (
        lambda: signed(HEADER | {"b64": True, "crit": ["b64"]}),
        "JOSE header: crit names an extension that is not understood",
    ),
    "client_id is a number": (lambda: signed(claims=payload(client_id="5")), "client_id is not a string"),
    "scope is a number": (lambda: signed(claims=payload(scope="5")), "scope is neither a string nor an array of strings"),
    "the header is padded": (lambda: respelled(0, padded), CREDENTIALS),
    "the claims are padded": (lambda: respelled(1, padded), CREDENTIALS),
    "the signature is padded": (lambda: respelled(2, padded), COMPACT),
}


@pytest.mark.parametrize(("make", "detail"), MALFORMED.values(), ids=MALFORMED)
def test_pyjwt_accepts_what_is_malformed(make: Callable[[], str], detail: str) -> None:
    token = make()
    assert by_pyjwt(token, key().private_key.public_key())["iss"] == ISSUER
    with refused(Reason.TOKEN_MALFORMED, detail):
        authenticate(ours(key().jwk()), token)


@pytest.mark.parametrize(
    ("position", "spell", "detail"),
    [*((part, with_spare_bits, CANONICAL) for part in (0, 1, 2)), (1, in_the_standard_alphabet, COMPACT)],
)
def test_pyjwt_accepts_base64url_in_a_second_spelling_before_2_14(
    position: int, spell: Callable[[str], str], detail: str
) -> None:
    token = respelled(position, spell)
    if Version("2.14") > PYJWT:
        assert by_pyjwt(token, key().private_key.public_key())["iss"] == ISSUER
    else:
        with pytest.raises(jwt.DecodeError):
            by_pyjwt(token, key().private_key.public_key())
    with refused(Reason.TOKEN_MALFORMED, detail):
        authenticate(ours(key().jwk()), token)


@pytest.mark.parametrize("typ", ["dpop+jwt", "logout+jwt", "secevent+jwt", ""])
def test_pyjwt_accepts_a_jwt_of_another_type(typ: str) -> None:
    token = signed(HEADER | {"typ": typ})
    assert by_pyjwt(token, key().private_key.public_key())["iss"] == ISSUER
    with refused(Reason.TOKEN_INVALID, "typ is not that of an access token"):
        authenticate(ours(key().jwk()), token)


# -- what PyJWT accepts and we refuse: keys ----------------------------------------------------------------------------


@pytest.mark.parametrize("members", [{"use": "enc"}, {"key_ops": ["sign"]}, {"key_ops": []}, {"alg": "RS512"}])
def test_pyjwt_verifies_with_a_key_that_is_for_something_else(members: dict[str, Any]) -> None:
    jwk = key().jwk(**members)
    assert by_pyjwt(mint(), jwt.PyJWK(jwk, algorithm="RS256"))["iss"] == ISSUER
    error = refusal(lambda: authenticate(ours(jwk, key("other").jwk()), mint()))
    assert error is not None
    assert error.detail in ("no key of the issuer has this kid", "no key of the issuer fits alg")


def test_pyjwt_verifies_with_an_rsa_key_of_1024_bits_and_a_warning() -> None:
    short = new_key(rsa_bits=1024)
    with pytest.warns(UserWarning, match="1024 bits"):
        assert by_pyjwt(mint(short), jwt.PyJWK(short.jwk()))["iss"] == ISSUER
    with refused(Reason.TOKEN_INVALID, "no key of the issuer has this kid"):
        authenticate(ours(short.jwk(), key("other").jwk()), mint(short))


def test_pyjwt_verifies_es256_with_a_key_of_another_curve() -> None:
    signer = signer_of("ES384")
    signature = signer.sign(b"input", "ES256")
    assert get_default_algorithms()["ES256"].verify(b"input", signer.private_key.public_key(), signature)
    assert not load_key(signer.jwk()).verify("ES256", b"input", signature)


def test_pyjwt_takes_an_rsa_key_without_alg_for_one_of_rs256_alone() -> None:
    token, jwk = mint(key("k1", "PS256")), key("k1", "PS256").jwk(alg=None)
    with pytest.raises(jwt.InvalidAlgorithmError):
        by_pyjwt(token, jwt.PyJWK(jwk))
    assert authenticate(ours(jwk), token).algorithm == "PS256"


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"kty": "oct"}, KeyError),
        ({"kty": "RSA", "alg": ["x"]}, TypeError),
        ({"kty": "RSA", "alg": "none"}, NotImplementedError),
    ],
)
def test_pyjwt_loses_a_whole_set_to_one_bad_key(bad: dict[str, Any], error: type[Exception]) -> None:
    document = {"keys": [key().jwk(), bad]}
    with pytest.raises(error):
        jwt.PyJWKSet.from_dict(document)
    loaded = parse_jwks(json.dumps(document).encode(), 10)
    assert [one.kid for one in loaded.keys] == ["k1"]
    assert len(loaded.skipped) == 1

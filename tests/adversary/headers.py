"""Attacks by what the JOSE header says of the key: algorithms, key material in the token, kids."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.adversary.case import ACCEPTED, INVALID, MALFORMED, Group
from tests.adversary.world import CROWDED, NOW, OTHER, STRICT, World
from tests.support.tokens import SigningKey, base64url

TYPES: dict[str, Any] = {
    "null": None,
    "true": True,
    "a number": 1,
    "a fraction": 1.5,
    "an array": ["RS256"],
    "an object": {"a": 1},
}


def none(world: World) -> Iterator[Group]:
    """Nothing signed, by whatever name."""
    group = Group("alg none", "RFC 8725 §3.2")
    for name in (
        "none",
        "None",
        "NONE",
        "nOnE",
        "NoNe",
        "none ",
        " none",
        "none\0",
        "non\u0435",
        "",
        "null",
        "undefined",
        "unsecured",
    ):
        source = "CVE-2015-9235" if name.lower() == "none" else ""
        spelled = name.encode("ascii", "backslashreplace").decode()
        header = {"alg": name, "kid": "rsa"}
        group.token(f"{spelled!r} and an empty signature", world.unsigned(header), MALFORMED, world.token(), source)
        group.token(f"{spelled!r} and some signature", world.unsigned(header, signature=b"x"), INVALID, world.token(), source)
        group.token(f"{spelled!r}, rightly signed all the same", world.headed(header), INVALID, world.token(), source)
    header = {"alg": "RS256", "kid": "rsa"}
    group.token("RS256 and an empty signature", world.unsigned(header), MALFORMED, world.token(), "CVE-2020-28042")
    group.token("RS256, its last part cut off", world.token().rpartition(".")[0], MALFORMED, world.token(), "RFC 7515 §7.1")
    group.token(
        "RS256 and one octet of signature", world.unsigned(header, signature=b"\0"), INVALID, world.token(), "CVE-2020-28042"
    )
    for kind, value in TYPES.items():
        group.token(
            f"{kind} in place of alg", world.headed({"alg": value, "kid": "rsa"}), MALFORMED, world.token(), "RFC 7515 §4.1.1"
        )
    group.token("no alg at all", world.headed({"kid": "rsa"}), MALFORMED, world.token(), "RFC 7515 §4.1.1")
    for name in (
        "rs256",
        "RS256 ",
        "RS-256",
        "SHA256withRSA",
        "RSA-OAEP",
        "dir",
        "ES256K",
        "Ed448",
        "RS1",
        "ML-DSA-44",
        "PBES2-HS256+A128KW",
    ):
        group.token(
            f"alg {name!r}", world.headed({"alg": name, "kid": "rsa", "p2c": 2**31}), INVALID, world.token(), "RFC 8725 §3.1"
        )
    yield group


def hmac_with_public_key(world: World) -> Iterator[Group]:
    """The public key is public: whoever takes it for a secret takes everybody's token."""
    group = Group("HMAC with the public key", "RFC 8725 §2.1")
    public = world.rsa.private_key.public_key()
    jwk = world.rsa.jwk()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    certificate = _certificate(world.rsa)
    secrets = {
        "PEM": (pem, "CVE-2016-10555"),
        "PEM without its last line end": (pem.rstrip(), "CVE-2016-5431"),
        "PEM with CR LF": (pem.replace(b"\n", b"\r\n"), ""),
        "PKCS #1 PEM": (public.public_bytes(Encoding.PEM, PublicFormat.PKCS1), "CVE-2017-11424"),
        "DER": (public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "CVE-2024-37568"),
        "PKCS #1 DER": (public.public_bytes(Encoding.DER, PublicFormat.PKCS1), ""),
        "OpenSSH": (public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "CVE-2022-29217"),
        "JWK text": (json.dumps(jwk).encode(), ""),
        "JWK text without spaces": (json.dumps(jwk, separators=(",", ":")).encode(), ""),
        "JWK Set text": (json.dumps({"keys": [jwk]}).encode(), ""),
        "the JWK's n": (jwk["n"].encode(), ""),
        "the modulus": (public.public_numbers().n.to_bytes(256, "big"), ""),
        "the JWK's thumbprint": (_thumbprint(jwk), "RFC 7638 §3"),
        "certificate PEM": (certificate.public_bytes(Encoding.PEM), ""),
        "certificate DER": (certificate.public_bytes(Encoding.DER), ""),
        "the kid": (b"rsa", ""),
        "nothing": (b"", "CVE-2019-20933"),
    }
    for name, (secret, source) in secrets.items():
        group.token(f"HS256, {name}", _mac(world, "HS256", secret, "HS256"), INVALID, world.token(), source)
    for alg in ("HS384", "HS512"):
        group.token(f"{alg}, PEM", _mac(world, alg, pem, alg), INVALID, world.token(), "CVE-2016-10555")
    for name in ("PEM", "DER", "JWK text", "nothing"):
        group.token(f"{name}, said to be RS256", _mac(world, "RS256", secrets[name][0], "HS256"), INVALID, world.token())
    for signer in (*world.es.values(), world.ed):
        own = signer.private_key.public_key()
        forms = {
            "PEM": (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "DER": (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        }
        if signer.alg != "EdDSA":
            forms["OpenSSH"] = (Encoding.OpenSSH, PublicFormat.OpenSSH)
        for name, (encoding, form) in forms.items():
            token = _mac(world, "HS256", own.public_bytes(encoding, form), "HS256", signer.kid or "")
            group.token(f"HS256, {name} of the {signer.alg} key", token, INVALID, world.token(signer), "CVE-2024-33663")
    yield group


def _mac(world: World, named: str, secret: bytes, alg: str, kid: str = "rsa") -> str:
    signing_input = world.unsigned({"alg": named, "kid": kid}).rpartition(".")[0]
    digest = hmac.digest(secret, signing_input.encode(), f"sha{alg[2:]}")
    return f"{signing_input}.{base64url(digest)}"


def _thumbprint(jwk: dict[str, Any]) -> bytes:
    members = json.dumps({name: jwk[name] for name in ("e", "kty", "n")}, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(members.encode()).digest()


def _certificate(signer: SigningKey) -> x509.Certificate:
    """Self-signed: whoever takes a chain from a token takes this one."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer.example")])
    start = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    builder = x509.CertificateBuilder(name, name, signer.private_key.public_key(), 1, start, start + datetime.timedelta(365))
    return builder.sign(signer.private_key, hashes.SHA256())


def embedded_keys(world: World) -> Iterator[Group]:
    """The token brings its key, or says where to fetch it: the key signs, and must not be looked at."""
    group = Group("embedded jwk, jku, x5u, x5c", "RFC 8725 §3.10")
    forger, trap = world.forger, world.trap
    der = _certificate(forger).public_bytes(Encoding.DER)
    chain = [json.loads(json.dumps(base64url(der))).replace("-", "+").replace("_", "/")]
    thumbprint = {"x5t": base64url(hashlib.sha1(der).digest()), "x5t#S256": base64url(hashlib.sha256(der).digest())}
    members: dict[str, tuple[dict[str, Any], str]] = {
        "jwk": ({"jwk": forger.jwk()}, "CVE-2018-0114"),
        "jwk that is named as the issuer's": ({"jwk": forger.jwk(kid="rsa")}, "CVE-2018-0114"),
        "jwks": ({"jwks": {"keys": [forger.jwk()]}}, ""),
        "jku": ({"jku": f"{trap}/jwks.json"}, "RFC 7515 §4.1.2"),
        "jku with the issuer as user name": ({"jku": f"{trap}/jwks.json".replace("//", "//issuer.example@")}, ""),
        "jku with a fragment": ({"jku": f"{trap}/jwks.json#https://issuer.example/"}, ""),
        "jku that is data": ({"jku": f"data:application/json,{json.dumps({'keys': [forger.jwk()]})}"}, ""),
        "jku that is a file": ({"jku": "file:///dev/zero"}, ""),
        "x5u": ({"x5u": f"{trap}/chain.pem"}, "RFC 7515 §4.1.5"),
        "x5c": ({"x5c": chain}, "RFC 7515 §4.1.6"),
        "x5c and its thumbprints": ({"x5c": chain} | thumbprint, "RFC 7515 §4.1.7"),
        "jwk of a symmetric key": ({"jwk": {"kty": "oct", "k": base64url(b"secret")}}, ""),
        "everything at once": ({"jwk": forger.jwk(), "jku": f"{trap}/jwks.json", "x5u": trap, "x5c": chain} | thumbprint, ""),
    }
    for name, (header, source) in members.items():
        right = world.token(header=header)  # signed by the issuer's key, whatever else its header says
        group.token(f"{name}, with an unknown kid", world.token(forger, header), INVALID, right, source)
        group.token(f"{name}, under the issuer's kid", world.token(forger, header | {"kid": "rsa"}), INVALID, right, source)
    group.token(
        "jwk, and no kid",
        world.token(forger, {"jwk": forger.jwk(), "del_": ["kid"]}, iss=OTHER),
        INVALID,
        world.token(),
        "CVE-2018-0114",
    )
    group.token(
        "jwk in the claims", world.token(forger, sub_jwk=forger.jwk(), cnf={"jwk": forger.jwk()}), INVALID, world.token()
    )
    for kind, value in TYPES.items():
        header = dict.fromkeys(("jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"), value)
        group.token(
            f"all of them {kind}, which nobody reads", world.token(header=header), ACCEPTED, world.token(), "RFC 7515 §4"
        )
    group.token("kid that is a URL", world.token(forger, {"kid": f"{trap}/jwks.json"}), INVALID, world.token())
    group.token("iss that would be discovered", world.token(forger, iss=trap), INVALID, world.token(), "RFC 8725 §3.8")
    yield group


def hostile_kids(world: World) -> Iterator[Group]:
    """Rightly signed, and named by what might reach a file, a database, a shell, a template or a log."""
    group = Group("hostile kid", "RFC 8725 §3.10")
    for name, value in TYPES.items():
        group.token(
            f"{name} in place of a string", world.token(header={"kid": value}), MALFORMED, world.token(), "RFC 7515 §4.1.4"
        )
    group.token("empty", world.token(header={"kid": ""}), MALFORMED, world.token())
    group.token("of 512 characters", world.token(header={"kid": "k" * 512}), INVALID, world.token())
    group.token("of 513 characters", world.token(header={"kid": "k" * 513}), MALFORMED, world.token())
    group.token("of 10,000 characters", world.token(header={"kid": "k" * 10_000}), MALFORMED, world.token())
    group.token("a lone surrogate", world.token(header={"kid": "\ud800"}), MALFORMED, world.token(), "RFC 8259 §8.2")
    hostile = [
        *(
            "../../../../../../dev/null",
            "/dev/null",
            "/etc/passwd",
            "..\\..\\windows\\win.ini",
            "file:///etc/passwd",
            "rsa/../rsa",
        ),
        *("' OR '1'='1", "x' UNION SELECT 'secret", "rsa'; DROP TABLE keys; --", "*)(kid=*", "$ne"),
        *(
            "$(id)",
            "`id`",
            "| id",
            "rsa; id",
            "${jndi:ldap://127.0.0.1/x}",
            "{{7*7}}",
            "%s%s%n",
            "{0.__class__}",
            "<script>alert(1)</script>",
        ),
        *("rsa\0", "rsa\n", "rsa\r\nINFO accepted", "\x1b[2J", "\u202easr", "rsa\u200b", "\ufeffrsa", "rѕa"),
        *("RSA", " rsa", "rsa ", "rs", "rsaa", "__proto__", "constructor", "null", "0", "-1", "é" * 500, "🔑" * 512),
    ]
    for kid in hostile:
        group.token(f"{kid[:40]!a}", world.token(header={"kid": kid}), INVALID, world.token())
    group.token("of another issuer's key", world.token(world.spare), INVALID, world.token(world.spare, iss=STRICT))
    for nth, signer in (("first", world.spare), ("second", world.es["ES256"])):
        right = world.token(world.spare, iss=CROWDED)
        twice = world.token(signer, {"kid": "twice"}, iss=CROWDED)
        group.token(f"of two keys that both fit, by the {nth}", twice, INVALID, right)
        without = world.token(signer, {"del_": ["kid"]}, iss=CROWDED)
        group.token(f"none, where several keys fit, by the {nth}", without, INVALID, right)
    group.token(
        "none, where one key fits", world.token(world.ed, {"del_": ["kid"]}), ACCEPTED, world.token(world.ed), "RFC 7515 §4.1.4"
    )
    group.token("none, forged", world.token(world.as_if(world.ed), {"del_": ["kid"]}), INVALID, world.token(world.ed))
    yield group

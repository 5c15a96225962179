"""The embedded issuer's signing keys: theirs alone who started it, and the same at every start."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_IMODE

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)

from grpc_bearer.keys.jwks import parse_jwks
from grpc_bearer_server.issuer.keys import ALGORITHMS, FILE_NAME, SigningKey, StateError, load_or_make
from tests.support.tokens import key


def kids(keys: Mapping[str, SigningKey]) -> dict[str, str]:
    return {alg: signing_key.kid for alg, signing_key in keys.items()}


def test_keys_and_their_folder_can_be_read_by_their_owner_only(state_dir: Path) -> None:
    assert S_IMODE(state_dir.stat().st_mode) == 0o700
    assert S_IMODE((state_dir / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in state_dir.iterdir()] == [FILE_NAME]


def test_a_restart_has_the_same_keys(state_dir: Path) -> None:
    assert kids(load_or_make(state_dir)) == kids(load_or_make(state_dir))
    assert tuple(load_or_make(state_dir)) == ALGORITHMS


def test_the_public_keys_are_such_as_the_library_takes_and_hold_nothing_private(state_dir: Path) -> None:
    members = [signing_key.public_jwk() for signing_key in load_or_make(state_dir).values()]
    key_set = parse_jwks(json.dumps({"keys": members}).encode(), 10)
    assert key_set.skipped == ()
    assert {jwk.kid for jwk in key_set.keys} == set(kids(load_or_make(state_dir)).values())
    assert [(jwk["alg"], jwk["use"]) for jwk in members] == [(alg, "sig") for alg in ALGORITHMS]
    assert not {"d", "p", "q", "dp", "dq", "qi"} & {name for jwk in members for name in jwk}


def test_starts_at_the_same_time_end_up_with_one_new_set_of_keys(tmp_path: Path, state_dir: Path) -> None:
    at_once = threading.Barrier(2)

    def start() -> dict[str, str]:
        at_once.wait(20)
        return kids(load_or_make(tmp_path))

    with ThreadPoolExecutor(2) as threads:
        found = [started.result() for started in [threads.submit(start) for _ in range(2)]]
    assert found == [kids(load_or_make(tmp_path))] * 2
    assert set(found[0].values()).isdisjoint(kids(load_or_make(state_dir)).values())
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_keys_that_others_can_get_at_are_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text("{}")
    path.chmod(mode)
    with pytest.raises(StateError) as caught:
        load_or_make(tmp_path)
    assert str(caught.value) == f"{path}: can be read by others; run chmod 600 on it, or delete it for new keys"


def pem(encryption: object = None) -> str:
    private = key("pem", "ES256").private_key
    if encryption is None:
        public: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return public.decode()
    encrypted: bytes = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return encrypted.decode()


NO_KEYS = "does not hold signing keys; delete it for new ones"
NOT_ALL = "does not hold a private key for each of RS256, ES256, EdDSA; delete it"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (lambda: "", NO_KEYS),
        (lambda: "{", NO_KEYS),
        (lambda: "\xff", NO_KEYS),
        (lambda: "[]", NOT_ALL),
        (lambda: "null", NOT_ALL),
        (lambda: "{}", NOT_ALL),
        (lambda: json.dumps(dict.fromkeys(ALGORITHMS, 5)), NOT_ALL),
        (lambda: json.dumps(dict.fromkeys(ALGORITHMS, "no PEM")), NOT_ALL),
        (lambda: json.dumps(dict.fromkeys(ALGORITHMS, pem())), NOT_ALL),
        (lambda: json.dumps(dict.fromkeys(ALGORITHMS, pem(BestAvailableEncryption(b"secret")))), NOT_ALL),
    ],
)  # fmt: skip
def test_a_file_without_the_keys_is_one_line_that_says_what_to_do(
    content: Callable[[], str], text: str, tmp_path: Path
) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(content(), encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(StateError) as caught:
        load_or_make(tmp_path)
    assert str(caught.value) == f"{path}: {text}"


@pytest.mark.parametrize("below", ["", "state"])
def test_a_folder_that_cannot_be_made_is_one_line_that_names_it(below: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StateError) as caught:
        load_or_make(file / below)
    why = "Not a directory" if below else "File exists"
    assert str(caught.value) == f"{file / below}: {why}; choose another state_dir"


def test_keys_in_a_folder_s_place_are_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir(mode=0o700)
    with pytest.raises(StateError) as caught:
        load_or_make(tmp_path)
    assert str(caught.value) == f"{tmp_path / FILE_NAME}: Is a directory; choose another state_dir"

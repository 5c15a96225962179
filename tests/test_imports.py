"""What an import brings with it: a user's service pays at each start for all that is loaded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SERVER_ONLY = (
    "click",
    "pydantic",
    "pydantic_settings",
    "prometheus_client",
    "rich",
    "starlette",
    "uvicorn",
    "grpc_bearer_server",
)
LOADED = "import json, sys, {}; print(json.dumps(sorted(sys.modules)))"
FILE_KEYS = """
import json, sys
from grpc_bearer import Authenticator, Issuer
auth = Authenticator([Issuer("https://issuer.example", audiences=["orders"], jwks_file={path!r})])
assert auth.warm(10), auth.status()
auth.close()
print(json.dumps(sorted(sys.modules)))
"""


def loaded(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["grpc_bearer", "grpc_bearer.sync", "grpc_bearer.aio"])
def test_the_library_loads_nothing_of_the_service_and_no_http_client(module: str) -> None:
    modules = loaded(LOADED.format(module))
    assert {"grpc_bearer", "jwt"} <= modules
    assert modules.isdisjoint({*SERVER_ONLY, "requests", "urllib3"})


def test_the_synchronous_interceptor_does_not_load_the_asynchronous_one() -> None:
    assert "grpc_bearer.aio" not in loaded(LOADED.format("grpc_bearer.sync"))


def test_keys_in_a_file_load_no_http_client_either(tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.support.tokens import jwks, key

    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    path.write_text(json.dumps(jwks(key())))
    assert loaded(FILE_KEYS.format(path=str(path))).isdisjoint({"requests", "urllib3"})

"""`python -m benchmarks.instructions`: what a call costs in machine instructions, which no load of the machine disturbs.

Counted by callgrind over the interceptor alone, driven as grpc drives it, with grpc's own handlers and no server around it:
a hit, a miss and the refusals, sync and aio, without the extras. Signatures are counted apart and taken off, since they are
OpenSSL's and differ from one processor to the next. `--check` compares with the figures of `instructions.json` and fails on
growth; `--record` writes them anew. Interpreters differ too, so what is compared are multiples of a fixed piece of Python.
"""

from __future__ import annotations

import argparse
import contextvars
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from benchmarks import extras, pools
from benchmarks.machine import version
from benchmarks.server import UNARY
from grpc_bearer import Authenticator, Issuer, aio, sync
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, jwks, new_key

RECORDED: Final = Path(__file__).with_name("instructions.json")
TOLERANCE: Final = 1.05
"""How much a figure may grow before it has to be recorded anew, in the change that makes it grow."""

_CALLS: Final = 100
_WARM_UP: Final = 50
"""Calls before it counts: Python 3.11 specialises code that has run a few times."""

_SIGNATURE: Final = "signature alone"
_YARDSTICK: Final = "a fixed piece of Python"
_MARK: Final = "getpriority"
"""A function of libc that nothing else calls: callgrind ends a section whenever it is entered."""


class _Metadatum(NamedTuple):
    key: str
    value: str


class _Details(NamedTuple):
    method: str
    invocation_metadata: tuple[_Metadatum, ...]


def _details(token: str | None) -> _Details:
    user_agent = _Metadatum("user-agent", "grpc-python-asyncio/1.85.1 grpc-c/50.0.0 (linux; chttp2)")
    return _Details(UNARY, (user_agent, *([] if token is None else [_Metadatum("authorization", f"Bearer {token}")])))


class _AbortedError(Exception):
    """What grpc's `abort` ends a handler with."""


class _Context:
    """As much of grpc's context as a refusal uses."""

    def set_trailing_metadata(self, trailers: Any) -> None:
        """Taken, as grpc takes it."""

    def abort(self, code: Any, details: str) -> None:
        raise _AbortedError


class _AioContext(_Context):
    async def abort(self, code: Any, details: str) -> None:  # type: ignore[override]
        raise _AbortedError


def _handler(request: Any, _context: Any) -> Any:
    return request


async def _aio_handler(request: Any, _context: Any) -> Any:
    return request


_HANDLER: Any = grpc.unary_unary_rpc_method_handler(_handler)
_AIO_HANDLER: Any = grpc.unary_unary_rpc_method_handler(_aio_handler)


def _sync_call(interceptor: sync.AuthInterceptor, details: Any, context: Any) -> None:
    """What grpc does with a call: the interceptor in a context of its own, then the handler that it returned."""
    scope = contextvars.Context()
    handler: Any = scope.run(interceptor.intercept_service, lambda _details: _HANDLER, details)
    with suppress(_AbortedError):
        if handler.request_streaming:
            scope.run(handler.stream_unary, iter((b"",)), context)
        else:
            scope.run(handler.unary_unary, b"", context)


async def _aio_call(interceptor: aio.AuthInterceptor, details: Any, context: Any) -> None:
    async def continuation(_details: Any) -> Any:
        return _AIO_HANDLER

    handler: Any = await interceptor.intercept_service(continuation, details)
    with suppress(_AbortedError):
        await (handler.stream_unary if handler.request_streaming else handler.unary_unary)(b"", context)


def _run_sync(authenticator: Authenticator, calls: Sequence[_Details]) -> None:
    interceptor, context = sync.AuthInterceptor(authenticator), _Context()
    _counted(lambda details: _sync_call(interceptor, details, context), calls)


def _run_aio(authenticator: Authenticator, calls: Sequence[_Details]) -> None:
    interceptor, context = aio.AuthInterceptor(authenticator), _AioContext()
    _counted(lambda details: _finished(_aio_call(interceptor, details, context)), calls)


def _finished(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what never waits, without an event loop's own instructions."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a call waited")


def _counted(call: Callable[[Any], object], calls: Sequence[Any]) -> None:
    for details in calls[:_WARM_UP]:
        call(details)
    gc.collect()
    gc.disable()
    os.getpriority(os.PRIO_PROCESS, 0)
    for details in calls[_WARM_UP:]:
        call(details)
    os.getpriority(os.PRIO_PROCESS, 0)
    gc.enable()


@dataclass(frozen=True, slots=True)
class Section:
    """One figure: which stack, and the tokens that its calls carry."""

    name: str
    stack: str
    tokens: str


SECTIONS: Final = tuple(
    Section(f"{what}, {stack}", stack, what)
    for what in ("hit", "miss", "bad signature", "expired", "no token")
    for stack in ("sync", "aio")
)


def _tokens(what: str, pools_by_name: dict[str, list[str]]) -> list[str | None]:
    count = _CALLS + _WARM_UP
    if what == "no token":
        return [None] * count
    made = pools_by_name["miss" if what == "hit" else what]
    return [made[0]] * count if what == "hit" else list(made)


def _child(given: Path) -> None:
    """Under callgrind: carry out every section, with a mark before and after each."""
    extras.use(False)
    made = json.loads(given.read_text(encoding="utf-8"))
    issuer = Issuer(ISSUER, audiences=[AUDIENCE], jwks=made["jwks"])
    for section in SECTIONS:
        calls = [_details(token) for token in _tokens(section.tokens, made["tokens"])]
        (_run_sync if section.stack == "sync" else _run_aio)(Authenticator([issuer]), calls)
    authenticator = Authenticator([issuer])
    candidates = [authenticator.gate.read(_details(token).invocation_metadata) for token in made["tokens"]["miss"]]
    step: Any = authenticator.gate.key_for(candidates[0])
    _counted(_yardstick, ["x"] * (_CALLS + _WARM_UP))
    _counted(lambda candidate: step.key.verify("RS256", *candidate.jws[2:4]), candidates)


class _Thing:
    __slots__ = ("name", "value")

    def __init__(self, name: str, value: int) -> None:
        self.name = name
        self.value = value


def _yardstick(name: str) -> int:
    """What a call of ours is made of: calls, attributes, dictionaries, strings, JSON, an exception."""
    things = [_Thing(f"{name}{number}", number) for number in range(40)]
    found = json.loads(json.dumps({thing.name: thing.value for thing in things}))
    try:
        return int(found["none"])
    except KeyError:
        return sum(value for value in found.values() if value % 2)


def _given() -> dict[str, Any]:
    key = new_key("RS256")
    forger = SigningKey(key.kid, key.alg, new_key("RS256").private_key)
    numbers = range(_CALLS + _WARM_UP)
    past: dict[str, Any] = {"exp": 1_700_000_000, "nbf": 1_600_000_000, "iat": 1_600_000_000}
    return {
        "jwks": jwks(key),
        "tokens": {
            "miss": [pools.token(key, number, ISSUER) for number in numbers],
            "bad signature": [pools.token(forger, number, ISSUER) for number in numbers],
            "expired": [pools.token(key, number, ISSUER, **past) for number in numbers],
        },
    }


def _totals(folder: Path) -> Iterator[int]:
    """The instructions of each part that callgrind wrote, in order."""
    for part in sorted(folder.glob("out.*"), key=lambda path: int(path.suffix[1:])):
        match = re.search(r"^(?:totals|summary): (\d+)", part.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if match is not None:
            yield int(match[1])


def count() -> dict[str, int]:
    """Instructions a call, by section; those that verify signatures are taken off. Raises `RuntimeError`."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError("valgrind is not on PATH: install it (Debian: apt-get install valgrind)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = folder / "given.json"
        given.write_text(json.dumps(_given()), encoding="utf-8")
        command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={folder / 'out'}", f"--dump-before={_MARK}"]
        # A fixed seed, so that dictionaries and sets collide in every run as in the one that was recorded.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        child = [sys.executable, "-m", "benchmarks.instructions", "--child", str(given)]
        ended = subprocess.run([*command, *child], env=environment, capture_output=True, text=True, timeout=600, check=False)
        if ended.returncode:
            raise RuntimeError(f"callgrind ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
        totals = list(_totals(folder))
    # The start up to the first mark, then by turns a section and what comes between two.
    between = totals[1::2]
    if len(between) < len(SECTIONS) + 2:
        raise RuntimeError(f"callgrind wrote {len(totals)} parts, which do not make {len(SECTIONS)} sections")
    per_call = [total // _CALLS for total in between]
    yardstick, signature = per_call[len(SECTIONS) : len(SECTIONS) + 2]
    found = {
        section.name: figure - (signature if section.tokens in ("miss", "bad signature") else 0)
        for section, figure in zip(SECTIONS, per_call, strict=False)
    }
    return found | {_YARDSTICK: yardstick, _SIGNATURE: signature}


def environment() -> dict[str, str]:
    """What the figures depend on besides our own code."""
    names = ("grpcio", "PyJWT", "cryptography", "orjson", "pybase64")
    python = f"{platform.python_version()} {platform.python_compiler()}"
    return {"Python": python, "machine": platform.machine()} | {name: version(name) or "not installed" for name in names}


def growth(found: dict[str, int], recorded: dict[str, int]) -> list[str]:
    """What has grown by more than the tolerance or was not recorded, a line each. Only what is ours is judged."""
    scale = found[_YARDSTICK] / recorded.get(_YARDSTICK, found[_YARDSTICK])
    return [
        f"{name}: {figure:,} instructions a call, recorded {recorded.get(name, 0):,} (here as much as {scale:.2f} times that)"
        for name, figure in found.items()
        if name not in (_SIGNATURE, _YARDSTICK) and figure > TOLERANCE * scale * recorded.get(name, 0)
    ]


def main() -> int:
    """The exit status: 1 when a figure has grown."""
    parser = argparse.ArgumentParser(description="Instructions a call, counted by callgrind.")
    parser.add_argument("--check", action="store_true", help="fail when a figure has grown by more than 5 %%")
    parser.add_argument("--record", action="store_true", help="write the figures to instructions.json")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        _child(asked.child)
        return 0
    found = count()
    known = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {"environment": {}, "calls": {}}
    for name, figure in found.items():
        print(f"{name:24} {figure:>9,}  recorded {known['calls'].get(name, 0):>9,}")
    if asked.record:
        RECORDED.write_text(json.dumps({"environment": environment(), "calls": found}, indent=2) + "\n", encoding="utf-8")
    faults = growth(found, known["calls"]) if asked.check else []
    for fault in faults:
        print(f"grown: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

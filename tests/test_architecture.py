"""The shape of the house, read from the sources with `ast`: who may import what, and how large a module may be."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "grpc_bearer"
SERVICE = "grpc_bearer_server"
GENERATED = "grpc_bearer.v1"
KIT = "grpc_bearer.testing"
PLUGIN = "grpc_bearer_pytest"

# No I/O and no clock: what they decide follows from their arguments alone.
PURE = frozenset(
    f"{LIBRARY}.{name}"
    for name in (
        "bearer",
        "claims",
        "errors",
        "jws",
        "keys.cache",
        "keys.jwks",
        "policy.authorize",
        "policy.model",
        "strict_json",
        "verifier",
    )
)
# No I/O and no clock of their own either, but they rest on modules that have: issuers, keys, the pool of descriptors.
STEPS = frozenset(f"{LIBRARY}.{name}" for name in ("gate", "policy.protos", "policy.table"))
IMPURE_IMPORTS = ("asyncio", "grpc", "requests", "socket", "threading", "time", "urllib3")
PACKAGES = frozenset({LIBRARY, f"{LIBRARY}.keys", f"{LIBRARY}.policy"})
DRIVERS = frozenset(f"{LIBRARY}.{name}" for name in ("aio", "aio_handlers", "handlers", "status", "sync"))
LARGEST_MODULE_LINES = 300


@cache
def modules() -> Mapping[str, Path]:
    """Every module of both source roots, by its dotted name."""
    found = {}
    for folder in ("interceptors", "server"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT / folder).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return MappingProxyType(found)


def written() -> list[str]:
    """The modules that people write: all but the generated ones."""
    return [name for name in modules() if not is_within(name, GENERATED)]


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@cache
def imports_of(module: str) -> frozenset[str]:
    """The absolute names of all that `module` imports, at whatever depth of its code; `from a import b` is `a` and `a.b`."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(_imported(ast.parse(path.read_text(encoding="utf-8")), package))


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def importers_of(package: str) -> set[str]:
    return {name for name in written() if any(is_within(imported, package) for imported in imports_of(name))}


def test_requests_and_urllib3_are_imported_by_the_fetch_module_alone() -> None:
    assert importers_of("requests") == {"grpc_bearer.keys.fetch"}
    assert importers_of("urllib3") == {"grpc_bearer.keys.fetch"}


@pytest.mark.parametrize("module", sorted(PURE | STEPS))
def test_a_module_of_decisions_imports_neither_io_nor_a_clock(module: str) -> None:
    impure = {name for name in imports_of(module) if any(is_within(name, package) for package in IMPURE_IMPORTS)}
    assert impure == set()


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_rests_on_pure_modules_only(module: str) -> None:
    own = {name for name in imports_of(module) if name in modules() and name not in PACKAGES}
    assert own <= PURE


def test_the_memory_of_verdicts_has_a_lock_and_neither_io_nor_a_clock() -> None:
    imported = imports_of(f"{LIBRARY}.verdict_cache")
    assert {name for name in IMPURE_IMPORTS if any(is_within(each, name) for each in imported)} == {"threading"}
    assert {name for name in imported if name in modules() and name not in PACKAGES} <= PURE


def of_core(names: Iterable[str]) -> set[str]:
    """Those of the library that serve: all but the kit for users' tests."""
    return {name for name in names if is_within(name, LIBRARY) and not is_within(name, KIT)}


def test_grpc_is_known_to_the_drivers_alone() -> None:
    assert of_core(importers_of("grpc")) <= DRIVERS


def test_the_kit_for_tests_is_known_to_nobody_but_its_plugin() -> None:
    assert {name for name in importers_of(KIT) if not is_within(name, KIT)} == {PLUGIN}


def test_the_plugin_is_no_part_of_a_package_and_imports_nothing_of_ours_when_it_is_loaded() -> None:
    """Pytest loads it at every start: `grpc_bearer` would take 150 ms, and be imported before coverage is measured."""
    program = f"import sys, {PLUGIN}; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(done.stdout.split())
    assert PLUGIN in loaded
    assert loaded & {LIBRARY, SERVICE, "cryptography", "google", "grpc", "jwt", "requests"} == set()


def test_asyncio_is_known_to_the_asyncio_driver_alone() -> None:
    of_library = {name for name in importers_of("asyncio") if is_within(name, LIBRARY)}
    assert of_library == {"grpc_bearer.aio", "grpc_bearer.aio_handlers"}


def test_protobuf_is_known_to_who_reads_options_and_to_who_writes_refusals() -> None:
    assert of_core(importers_of("google")) == {"grpc_bearer.policy.protos", "grpc_bearer.status"}


def test_the_library_never_imports_the_service() -> None:
    assert {name for name in importers_of(SERVICE) if is_within(name, LIBRARY)} == set()


def test_generated_code_imports_nothing_that_people_wrote() -> None:
    generated = set(modules()) - set(written())
    imported = {name for module in generated for name in imports_of(module) if is_within(name, LIBRARY)}
    assert generated
    assert {name for name in imported if not is_within(name, GENERATED)} <= set()


def test_no_source_imports_the_tests() -> None:
    assert importers_of("tests") == set()
    assert importers_of("pytest") == {PLUGIN}


@pytest.mark.parametrize("module", ["grpc_bearer", "grpc_bearer.sync", "grpc_bearer.aio", "grpc_bearer.testing"])
def test_importing_the_library_loads_nothing_of_the_service(module: str) -> None:
    program = f"import sys, {module}; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(done.stdout.split())
    assert LIBRARY in loaded
    # grpc itself imports grpc_health and grpc_reflection where they are installed.
    foreign = {SERVICE, "anyio", "click", "pydantic", "pydantic_settings", "pytest", "starlette", "tests", "uvicorn"}
    assert loaded & foreign == set()


@pytest.mark.parametrize("module", written())
def test_a_module_is_small(module: str) -> None:
    assert lines_of_code(modules()[module].read_text(encoding="utf-8")) <= LARGEST_MODULE_LINES


def lines_of_code(source: str) -> int:
    """Lines with code on them: blank lines, comments and docstrings do not count."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            first = node.body[0]
            docstrings.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)

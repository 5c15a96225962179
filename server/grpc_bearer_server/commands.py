"""The tools of the command line that look at rules, tokens and settings: `policy`, `explain`, `check-config`."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from grpc_bearer import Authenticator, Issuer, IssuerStatus, Policies
from grpc_bearer.explain import explain

from .assembly import OWN_SERVICES, authenticator_of, embedded_issuer, issuers_of, policies_of
from .errors import one_line_errors
from .listener import ListenError, credentials
from .loading import SettingsError, load
from .rendering import entry_json, explanation_json, print_explanation, print_issuers, print_json, print_policies
from .settings import Settings

CONFIG: Final = click.option("--config", "config", type=click.Path(path_type=Path), help="settings file, TOML")
MODULES: Final = click.option(
    "--module", "modules", multiple=True, metavar="MODULE", help="a generated module, as orders.v1.orders_pb2; repeatable"
)
PROTO_SETS: Final = click.option(
    "--proto-set",
    "proto_sets",
    multiple=True,
    type=click.Path(path_type=Path),
    help="a file of protoc --include_imports --descriptor_set_out; repeatable",
)
_AROUND: Final = " \t\r\n\"'"
_BEFORE: Final = re.compile(r"\A(?:authorization:\s*)?(?:bearer(?:\s+|\Z))?", re.IGNORECASE)
AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="as JSON")


@click.command("policy")
@CONFIG
@MODULES
@PROTO_SETS
@AS_JSON
def policy_command(config: Path | None, modules: tuple[str, ...], proto_sets: tuple[Path, ...], as_json: bool) -> None:
    """Print what each method requires, and which rule or proto says so.

    Without --module and --proto-set: of the service that comes with grpc-bearer.
    """
    with one_line_errors():
        settings = load(config)
        entries = policies_of(settings, services_in(modules, proto_sets)).entries()
        if as_json:
            print_json([entry_json(entry) for entry in entries])
        else:
            print_policies(entries)


@click.command("explain")
@CONFIG
@MODULES
@PROTO_SETS
@AS_JSON
@click.option("--method", help="what is called: package.Service/Method; its policy is asked too")
@click.option("--dev", is_flag=True, help="accept tokens of the running embedded issuer too")
@click.argument("token", required=False)
def explain_command(
    config: Path | None,
    modules: tuple[str, ...],
    proto_sets: tuple[Path, ...],
    as_json: bool,
    method: str | None,
    dev: bool,
    token: str | None,
) -> None:
    """Show, check by check, why TOKEN is accepted or refused, and what to do next. Exit status 1: refused.

    Without TOKEN it is read from standard input, which keeps it out of the shell's history.
    """
    with one_line_errors():
        settings = load(config)
        issuers = issuers_of(settings, *_dev_issuer(settings, dev))
        policies = policies_of(settings, services_in(modules, proto_sets))
        name = None if method is None else _known_method(method, policies)
        text = _token(token, settings.server.max_token_bytes)
        with authenticator_of(settings, issuers, policies) as auth:
            found = explain(auth, text, name)
    if as_json:
        print_json(explanation_json(found))
    else:
        print_explanation(found)
    sys.exit(0 if found.accepted else 1)


@click.command("check-config")
@CONFIG
@AS_JSON
@click.option("--wait", "wait_s", type=click.FloatRange(0, 300), default=10.0, help="seconds for the keys to come")
def check_config_command(config: Path | None, as_json: bool, wait_s: float) -> None:
    """Validate the settings, fetch each issuer's keys once, and report. Exit status 2: a wrong setting; 1: keys missing."""
    with one_line_errors():
        settings = load(config)
        issuers = issuers_of(settings)
        policies = policies_of(settings)
        _check_tls(settings)
        with authenticator_of(settings, issuers, policies) as auth:
            statuses = _fetched(auth, wait_s)
    ready = all(status.ready for status in statuses)
    if as_json:
        print_json(statuses)
    else:
        print_issuers(statuses)
        click.echo(f"the settings are valid{'' if ready else ', but keys are missing'}")
    sys.exit(0 if ready else 1)


def _dev_issuer(settings: Settings, dev: bool) -> list[Issuer]:
    return [embedded_issuer(settings.dev, f"http://{settings.dev.listen}")] if dev else []


def _known_method(text: str, policies: Policies) -> str:
    """The raw name of a method of the table. Raises `SettingsError`: to any other a server says UNIMPLEMENTED."""
    method = f"/{text.removeprefix('/')}"
    if policies.is_known(method):
        return method
    close = difflib.get_close_matches(method, [entry.method for entry in policies.entries()], n=1, cutoff=0.5)
    mend = f"did you mean {close[0][1:]}?" if close else "name its service with --module or --proto-set"
    raise SettingsError(f"--method: {text!r} is no method of the services at hand; {mend}")


def _token(argument: str | None, max_token_bytes: int) -> str:
    """The token of what was given or comes on standard input. Raises `SettingsError` when that is nothing."""
    if argument in (None, "-"):
        argument = sys.stdin.buffer.read(2 * max_token_bytes + 1).decode("utf-8", "replace")
    token = bare(argument or "")
    if not token:
        raise SettingsError("TOKEN: there is none, as an argument or on standard input")
    return token


def bare(text: str) -> str:
    """The token of what was pasted: without white space and quotes around it, and the header's name and scheme before it."""
    return _BEFORE.sub("", text.strip(_AROUND))


def _check_tls(settings: Settings) -> None:
    try:
        credentials(settings.server.tls)
    except ListenError as error:  # here it is a setting that is wrong
        raise SettingsError(str(error)) from None


def _fetched(auth: Authenticator, wait_s: float) -> tuple[IssuerStatus, ...]:
    """How each issuer stands after one fetch of its keys, or when `wait_s` has passed."""
    changed = threading.Event()
    auth.on_change(changed.set)
    auth.start()
    deadline = time.monotonic() + wait_s
    while True:
        changed.clear()
        statuses = auth.status()
        left_s = deadline - time.monotonic()
        if left_s <= 0 or all(status.ready or status.failures for status in statuses):
            return statuses
        changed.wait(left_s)


def services_in(modules: Iterable[str], proto_sets: Iterable[Path]) -> list[Any]:
    """What to look for policies in; our own services when nothing is named. Raises `SettingsError`."""
    found: list[Any] = [_module(name) for name in modules]
    for path in proto_sets:
        found += _services_of(path)
    return found or list(OWN_SERVICES)


def _module(name: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")  # generated modules stand where the command is called, more often than not
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"--module: {name}: there is no module {error.name}; set PYTHONPATH to the folder above it"
        ) from None
    except Exception as error:  # it is somebody else's code
        raise SettingsError(
            f"--module: {name} cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from None
    file = getattr(module, "DESCRIPTOR", None)
    if not isinstance(file, FileDescriptor) or not file.services_by_name:
        raise SettingsError(f"--module: {name} has no service in it; name a module that protoc made, as orders.v1.orders_pb2")
    return module


def _services_of(path: Path) -> list[str]:
    try:
        files = FileDescriptorSet.FromString(path.read_bytes())
    except OSError:
        raise SettingsError(f"--proto-set: {path} cannot be read") from None
    except DecodeError:
        raise SettingsError(f"--proto-set: {path} is no descriptor set; make it with protoc --descriptor_set_out") from None
    for file in files.file:
        _add(file, path)
    names = [f"{file.package}.{service.name}".lstrip(".") for file in files.file for service in file.service]
    if not names:
        raise SettingsError(f"--proto-set: {path} has no service in it")
    return names


def _add(file: FileDescriptorProto, path: Path) -> None:
    """Register a file where options are found: in the default pool (measured)."""
    pool = descriptor_pool.Default()
    try:
        known = pool.FindFileByName(file.name)
    except KeyError:
        known = None
    try:
        if known is None:
            pool.AddSerializedFile(file.SerializeToString())
            return
    except (TypeError, KeyError, ValueError):
        raise SettingsError(
            f"--proto-set: {file.name} in {path} does not fit the rest; make the set with protoc --include_imports"
        ) from None
    # The pool does not take it again: protoc writes more into a set than into the code that it generates (json_name).
    ours = FileDescriptorProto()
    known.CopyToProto(ours)
    if (ours.package, list(ours.service)) != (file.package, list(file.service)):
        raise SettingsError(f"--proto-set: {file.name} in {path} is not the one that is loaded already")

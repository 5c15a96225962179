"""Which policy a method has: rules over proto options over the default, in one table keyed by full method name.

Method names are matched exactly: `details.method` arrives raw, and a prefix would let `/grpc.health.v1.Health.evil/Check`
through.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import ConfigurationError
from .model import AUTHENTICATED, DENY, PUBLIC, Policy
from .protos import Declared, ServiceSource, find_service, services_of

PUBLIC_BY_DEFAULT: Final = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        # grpcurl asks for v1 first and falls back only on UNIMPLEMENTED, so v1 is public although Python serves v1alpha.
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)
MAX_LOOKED_UP: Final = 10_000

_TARGET: Final = re.compile(
    r"/?(?P<service>(?:[A-Za-z_][A-Za-z0-9_]*\.)*[A-Za-z_][A-Za-z0-9_]*)/(?P<method>[A-Za-z_][A-Za-z0-9_]*|\*)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy from outside the protos, for methods by name: `package.Service/Method`, or `package.Service/*` for the rest."""

    methods: Sequence[str]
    policy: Policy = AUTHENTICATED


@dataclass(frozen=True, slots=True)
class Entry:
    """A method's policy, and where it comes from (`source`, for people)."""

    method: str
    policy: Policy
    source: str


FROM_DEFAULT: Final = "default"


class Policies:
    """The policies of a server's methods.

    Precedence: `rules` for the exact method, `rules` for `service/*`, `public_methods`, the method's option in its proto, the
    service's option, what is public by default (health and reflection; `public_defaults`), and last: any valid token.

    `services`: what the server serves, for checks at start: generated `*_pb2` modules, generated `add_..._to_server`
    functions, or full names. They are needed for `strict`: each of their methods has to have a rule or an option, and a
    method of another service is denied. Services that are not listed are looked up at their first call.
    Raises `ConfigurationError` for a wrong policy, and for a rule whose method does not exist.
    """

    def __init__(
        self,
        *,
        services: Iterable[ServiceSource] = (),
        rules: Sequence[Rule] = (),
        public_methods: Iterable[str] = (),
        public_defaults: bool = True,
        strict: bool = False,
        find: Callable[[str], Declared | None] = find_service,
    ) -> None:
        self._find = find
        self._public_by_default = PUBLIC_BY_DEFAULT if public_defaults else frozenset[str]()
        self._strict = strict
        self._declared = {service.name: service for source in services for service in services_of(source)}
        if strict and not self._declared:
            raise ConfigurationError("strict: needs services, the list of what the server serves")
        self._exact: dict[str, tuple[Policy, str]] = {}
        self._rest: dict[str, tuple[Policy, str]] = {}
        self._public: dict[str, tuple[Policy, str]] = {}
        self._add_rules(rules)
        self._add_public(public_methods)
        self._table = {entry.method: entry for entry in self._compiled()}
        self._entries = dict(self._table)  # and those that were looked up
        without = [entry.method for entry in self._table.values() if entry.source == FROM_DEFAULT]
        if strict and without:
            methods = ", ".join(sorted(without))
            mend = "give each an option in its proto, or a Rule"
            raise ConfigurationError(f"strict: no rule and no option for {methods}; {mend}")

    def for_method(self, method: str) -> Entry:
        """The policy of a method by its raw name. Raises `ConfigurationError` for a wrong option in a proto looked up late."""
        entry = self._entries.get(method)
        return entry if entry is not None else self._look_up(method)

    def is_known(self, method: str) -> bool:
        """Whether the method is in the table: not a name that only a caller made up."""
        return method in self._table

    def entries(self) -> tuple[Entry, ...]:
        """The table, sorted by method: the methods of `services`, those that rules name, and what is public by default."""
        return tuple(sorted(self._table.values(), key=lambda entry: entry.method))

    def _look_up(self, method: str) -> Entry:
        service, name = _service_and_method(method)
        if self._strict:
            entry = Entry(method, DENY, "strict: not among the services")
        else:
            known = self._known(service)
            entry = self._entry(method, known, name)
            if known is None:  # not to be remembered: its module may be imported yet
                return entry
        if len(self._entries) >= len(self._table) + MAX_LOOKED_UP:
            self._entries = dict(self._table)  # a generic handler may answer to whatever names callers make up
        self._entries[method] = entry
        return entry

    def _compiled(self) -> Iterator[Entry]:
        for service in self._declared.values():
            for name in service.methods:
                yield self._entry(f"/{service.name}/{name}", service, name)
        for method in (self._exact.keys() | self._public.keys() | self._public_by_default) - self._methods():
            service_name, name = _service_and_method(method)
            yield self._entry(method, self._known(service_name), name)

    def _methods(self) -> set[str]:
        return {f"/{service.name}/{name}" for service in self._declared.values() for name in service.methods}

    def _entry(self, method: str, service: Declared | None, name: str) -> Entry:
        policy, source = self._policy(method, service, name)
        # The one that requires nothing further is told by what it is, at each call: a comparison of fields costs more.
        return Entry(method, AUTHENTICATED if policy == AUTHENTICATED else policy, source)

    def _policy(self, method: str, service: Declared | None, name: str) -> tuple[Policy, str]:
        rest = self._rest.get(service.name) if service is not None else None
        ruled = self._exact.get(method) or rest or self._public.get(method)
        if ruled is not None:
            return ruled
        if service is not None:
            option = service.methods.get(name)
            if option is not None:
                return option, "proto: method option"
            if service.default is not None:
                return service.default, "proto: service option"
        if method in self._public_by_default:
            return PUBLIC, "public by default"
        return AUTHENTICATED, FROM_DEFAULT

    def _add_rules(self, rules: Sequence[Rule]) -> None:
        for index, rule in enumerate(rules):
            source = f"rules[{index}]"
            if not _is_list(rule.methods) or not rule.methods:
                raise ConfigurationError(
                    f"{source}: methods: expected a list of names, package.Service/Method or package.Service/*"
                )
            policy: object = rule.policy
            if not isinstance(policy, Policy):
                raise ConfigurationError(f"{source}: policy: expected a Policy")
            for target in rule.methods:
                service, name = _target(target, f"{source}: methods")
                self._exists(service, name, f"{source}: methods: {target!r}")
                table, key = (self._rest, service) if name == "*" else (self._exact, f"/{service}/{name}")
                if key in table:
                    raise ConfigurationError(f"{source}: {target!r} has a rule already, in {table[key][1]}; merge the two")
                table[key] = (policy, source)

    def _known(self, service: str) -> Declared | None:
        return self._declared.get(service) or self._find(service)

    def _exists(self, service: str, name: str, where: str) -> None:
        found = self._known(service)
        if found is None:
            raise ConfigurationError(
                f"{where}: there is no such service{_nearest(service, self._declared)}; "
                "its generated module has to be imported before"
            )
        if name != "*" and name not in found.methods:
            raise ConfigurationError(f"{where}: {service} has no such method{_nearest(name, found.methods)}")

    def _add_public(self, methods: Iterable[str]) -> None:
        if not _is_list(methods):
            raise ConfigurationError("public_methods: expected a list of method names, got one string; put it into a list")
        for target in methods:
            service, name = _target(target, "public_methods")
            if name == "*" or not target.startswith("/"):
                raise ConfigurationError(
                    f"public_methods: {target!r} is not a full method name; write it as '/package.Service/Method'"
                )
            if target in self._exact:
                raise ConfigurationError(
                    f"public_methods: {target!r} has a rule already, in {self._exact[target][1]}; drop one"
                )
            if self._known(service) is not None:
                self._exists(service, name, f"public_methods: {target!r}")
            self._public[target] = (PUBLIC, "public_methods")


def _is_list(names: object) -> bool:
    return isinstance(names, Iterable) and not isinstance(names, str)


def _service_and_method(method: str) -> tuple[str, str]:
    """The two parts of a method's raw name. Without a leading slash it is no name of ours: it goes by no service's rules."""
    service, _slash, name = method[1:].partition("/")
    return (service, name) if method.startswith("/") else ("", method)


def _target(text: object, where: str) -> tuple[str, str]:
    match = _TARGET.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigurationError(f"{where}: {text!r} is not a full method name; write it as '/package.Service/Method'")
    return match["service"], match["method"]


def _nearest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""

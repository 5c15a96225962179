"""Policies in protos: the options of `grpc_bearer/v1/policy.proto`, found in the default descriptor pool.

Generated modules register themselves there when they are imported; options are found nowhere else (measured).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from ..errors import ConfigurationError
from ..v1 import policy_pb2
from .model import Access, ClaimRule, Policy, Streams

_ACCESS: Final = {
    policy_pb2.Policy.ACCESS_UNSPECIFIED: Access.AUTHENTICATED,
    policy_pb2.Policy.ACCESS_AUTHENTICATED: Access.AUTHENTICATED,
    policy_pb2.Policy.ACCESS_PUBLIC: Access.PUBLIC,
    policy_pb2.Policy.ACCESS_OPTIONAL: Access.OPTIONAL,
    policy_pb2.Policy.ACCESS_DENY: Access.DENY,
}
_STREAMS: Final = {
    policy_pb2.Policy.STREAMS_UNSPECIFIED: Streams.TERMINATE,
    policy_pb2.Policy.STREAMS_TERMINATE: Streams.TERMINATE,
    policy_pb2.Policy.STREAMS_FINISH: Streams.FINISH,
}


@dataclass(frozen=True, slots=True)
class Declared:
    """What is known of a service: its methods' names, and the policies that its proto has for them and for all."""

    name: str
    methods: Mapping[str, Policy | None]
    default: Policy | None = None


def policy_of(message: policy_pb2.Policy) -> Policy:
    """A proto's policy. Raises `ConfigurationError`, also for one that says more than this version understands."""
    if any(len(UnknownFieldSet(part)) for part in (message, *message.claims)):
        raise ConfigurationError("has a field that this version of grpc-bearer does not know; upgrade it")
    access, streams = _ACCESS.get(message.access), _STREAMS.get(message.streams)
    if access is None or streams is None:
        raise ConfigurationError("has an enum value that this version of grpc-bearer does not know; upgrade it")
    return Policy(
        access=access,
        scopes=tuple(message.scopes),
        any_scopes=tuple(message.any_scopes),
        claims=tuple(ClaimRule(rule.name, tuple(rule.any_of), tuple(rule.all_of), rule.present) for rule in message.claims),
        issuers=tuple(message.issuers),
        audiences=tuple(message.audiences),
        max_age_s=message.max_age_s or None,
        streams=streams,
        stream_grace_s=message.stream_grace_s,
    )


def _option(options: Message, extension: Any, where: str) -> Policy | None:
    if not options.HasExtension(extension):
        return None
    try:
        return policy_of(options.Extensions[extension])
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def declared(service: ServiceDescriptor) -> Declared:
    """A service by its descriptor. Raises `ConfigurationError` that names the option at fault."""
    name = service.full_name
    return Declared(
        name,
        {
            method.name: _option(method.GetOptions(), policy_pb2.policy, f"(grpc_bearer.v1.policy) of {name}.{method.name}")
            for method in service.methods
        },
        _option(service.GetOptions(), policy_pb2.default_policy, f"(grpc_bearer.v1.default_policy) of {name}"),
    )


def find_service(name: str) -> Declared | None:
    """The service of this full name, if its generated module has been imported. Raises `ConfigurationError`."""
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(name)
    except KeyError:
        return None
    # Some versions of protobuf read a name, which may be a caller's, no further than to its first NUL.
    return declared(descriptor) if descriptor.full_name == name else None


ServiceSource = Any
"""Where services come from: a generated `*_pb2` module, a generated `add_XServicer_to_server`, or a service's full name."""


class _Recorder:
    """Stands in for a server, and for any servicer: what is added to it is only written down."""

    def __init__(self) -> None:
        self.methods: dict[str, list[str]] = {}

    def __getattr__(self, name: str) -> Any:
        return None

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """The names come by `add_registered_method_handlers` too, or are known to the handler alone."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self.methods.setdefault(service, []).extend(handlers)


def services_of(source: ServiceSource) -> tuple[Declared, ...]:
    """The services of a source. Raises `ConfigurationError`."""
    if isinstance(source, str):
        found = find_service(source)
        if found is None:
            raise ConfigurationError(
                f"services: {source!r} is unknown; import its generated module first, and use its full name"
            )
        return (found,)
    file = getattr(source, "DESCRIPTOR", None)
    if isinstance(file, FileDescriptor):
        return tuple(declared(service) for service in file.services_by_name.values())
    if callable(source):
        return _registered(source)
    raise ConfigurationError("services: expected generated *_pb2 modules, add_..._to_server functions, or full service names")


def _registered(add_to_server: Callable[[Any, Any], object]) -> tuple[Declared, ...]:
    recorder = _Recorder()
    try:
        add_to_server(recorder, recorder)
    except Exception:
        raise ConfigurationError("services: a function was given that is no generated add_..._to_server") from None
    if not recorder.methods:
        raise ConfigurationError(
            "services: a function was given that registers no method by name; give its *_pb2 module in its place"
        )
    return tuple(_registered_service(name, methods) for name, methods in recorder.methods.items())


def _registered_service(name: str, methods: Iterable[str]) -> Declared:
    found = find_service(name)
    known: Mapping[str, Policy | None] = {} if found is None else found.methods
    return Declared(name, {method: known.get(method) for method in methods}, None if found is None else found.default)

"""The table of policies as a person reads it, written down once more as plainly as can be: the oracle of the property tests.

Nothing here is shared with the library: policies and claims are plain dicts and lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Said = Mapping[str, Any]
"""What is said of a method, by the names of the fields in `policy.proto`. What is not said is not in it."""

PUBLIC_BY_DEFAULT = ("/grpc.health.v1.Health/Check",)


@dataclass(frozen=True)
class Service:
    """A service and what its proto says: of its methods (None: nothing), and of all that say nothing."""

    name: str
    methods: Mapping[str, Said | None]
    default: Said | None = None


@dataclass(frozen=True)
class World:
    """All that a server was told. `services` are those in protos, `listed` the names of those that it says it serves."""

    services: Sequence[Service]
    listed: Sequence[str] = ()
    rules: Sequence[tuple[Sequence[str], Said]] = ()
    public_methods: Sequence[str] = ()
    public_defaults: bool = True
    strict: bool = False

    def rule_for(self, target: str) -> list[Said]:
        """What the rules say of a target, as it stands in them."""
        return [said for targets, said in self.rules for one in targets if one == target]


def is_wrong(world: World) -> bool:
    """Whether the world contradicts itself, or leaves out what it promises to say."""
    targets = [target for targets, _said in world.rules for target in targets]
    if len(targets) != len(set(targets)):
        return True
    if any(f"/{target}" in world.public_methods for target in targets):
        return True
    if not world.strict:
        return False
    if not world.listed:
        return True
    return any(what_is_said(world, method) is None for method in listed_methods(world))


def listed_methods(world: World) -> list[str]:
    """The methods of the services that the server says it serves."""
    return [f"/{service.name}/{name}" for service in world.services if service.name in world.listed for name in service.methods]


def what_is_said(world: World, method: str) -> Said | None:
    """By precedence: exact rule, service/* rule, public_methods, method option, service option, public by default."""
    service_name, name = method.lstrip("/").split("/")
    for said in world.rule_for(f"{service_name}/{name}"):
        return said
    for said in world.rule_for(f"{service_name}/*"):
        return said
    if method in world.public_methods:
        return {"access": "public"}
    for service in world.services:
        if service.name == service_name:
            own = service.methods.get(name)
            if own is not None:
                return own
            if service.default is not None:
                return service.default
    if world.public_defaults and method in PUBLIC_BY_DEFAULT:
        return {"access": "public"}
    return None


def is_served(world: World, method: str) -> bool:
    """Under strict, a method has to be listed, or named by itself."""
    return (
        not world.strict
        or method in listed_methods(world)
        or bool(world.rule_for(method.lstrip("/")))
        or method in world.public_methods
        or (world.public_defaults and method in PUBLIC_BY_DEFAULT)
    )


def may_call(world: World, method: str, *, sends: str, claims: Mapping[str, Any], now: float, leeway_s: float) -> bool:
    """Whether a call gets through. `sends`: "nothing", "another scheme", "a bad token", or "a good token" with these claims."""
    if not is_served(world, method):
        return False
    said = what_is_said(world, method) or {}
    access = said.get("access", "authenticated")
    if access == "public":
        return True
    if access == "deny":
        return False
    if access == "optional" and sends == "nothing":
        return True
    return sends == "a good token" and meets(said, claims, now, leeway_s)


def meets(said: Said, claims: Mapping[str, Any], now: float, leeway_s: float) -> bool:
    """Whether a caller of these claims has all that is said."""
    scopes = claims.get("scope", "").split() + claims.get("permissions", [])
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    wanted = [
        all(scope in scopes for scope in said.get("scopes", [])),
        "any_scopes" not in said or any(scope in scopes for scope in said["any_scopes"]),
        "issuers" not in said or claims["iss"] in said["issuers"],
        "audiences" not in said or any(audience in said["audiences"] for audience in audiences),
        all(holds(rule, claims) for rule in said.get("claims", [])),
    ]
    if "max_age_s" in said:
        since = claims.get("auth_time", claims.get("iat"))
        wanted.append(isinstance(since, int) and now - said["max_age_s"] - leeway_s <= since <= now + leeway_s)
    return all(wanted)


def holds(rule: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
    """Whether one claim is what its rule says."""
    value = claims[rule["name"]] if rule["name"] in claims else at_path(claims, rule["name"].split("."))
    if value is None:
        return False
    elements = value if isinstance(value, list) else [value]
    texts = [element for element in elements if isinstance(element, str)]
    texts += [json.dumps(element) for element in elements if isinstance(element, bool | int | float)]
    one_of = rule.get("any_of")
    return (one_of is None or any(text in texts for text in one_of)) and all(text in texts for text in rule.get("all_of", []))


def at_path(value: Any, path: Sequence[str]) -> Any:
    """What is at the end of a path through nested objects; None where it breaks off."""
    if not path:
        return value
    return at_path(value.get(path[0]), path[1:]) if isinstance(value, dict) else None

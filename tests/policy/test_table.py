"""Which policy a method has: by what precedence, that none is forgotten, and what is wrong with rules that name nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from policies.v1 import policies_pb2, policies_pb2_grpc

from grpc_bearer import Access, ConfigurationError, Policies, Policy, Rule
from grpc_bearer.policy.model import AUTHENTICATED, DENY, PUBLIC
from grpc_bearer.policy.protos import Declared
from grpc_bearer.policy.table import MAX_LOOKED_UP, PUBLIC_BY_DEFAULT, Entry
from grpc_bearer.v1 import identity_pb2
from tests.support.policies import DEFAULTED, OPTIONS, SILENT

HEALTH = "grpc.health.v1.Health"
CHECK = f"/{HEALTH}/Check"


def tagged(number: int) -> Policy:
    """A policy that is like no other."""
    return Policy(max_age_s=number)


def fault(**arguments: Any) -> str:
    """What is wrong with policies of these arguments."""
    with pytest.raises(ConfigurationError) as caught:
        Policies(**arguments)
    return str(caught.value)


# -- precedence --------------------------------------------------------------------------------------------------------

LAYERS = {
    "exact rule": (tagged(1), "rules[0]"),
    "service/* rule": (tagged(2), "rules[1]"),
    "public_methods": (PUBLIC, "public_methods"),
    "method option": (tagged(3), "proto: method option"),
    "service option": (tagged(4), "proto: service option"),
    "public by default": (PUBLIC, "public by default"),
}
NO_LAYER = (AUTHENTICATED, "default")
# A rule of its own beside public_methods is an error, see below.
COMBINATIONS = [
    layers
    for size in range(len(LAYERS) + 1)
    for layers in combinations(LAYERS, size)
    if not {"exact rule", "public_methods"} <= set(layers)
]


@pytest.mark.parametrize("layers", COMBINATIONS, ids=lambda layers: " + ".join(layers) or "nothing")
def test_the_first_that_says_something_of_a_method_wins(layers: tuple[str, ...]) -> None:
    of = {layer: policy for layer, (policy, _source) in LAYERS.items() if layer in layers}
    other = Declared("other.Service", {"Do": None})
    health = Declared(HEALTH, {"Check": of.get("method option"), "Watch": None}, of.get("service option"))
    policies = Policies(
        rules=[
            Rule([CHECK if "exact rule" in layers else "other.Service/Do"], LAYERS["exact rule"][0]),
            Rule([f"{HEALTH}/*" if "service/* rule" in layers else "other.Service/*"], LAYERS["service/* rule"][0]),
        ],
        public_methods=[CHECK] if "public_methods" in layers else [],
        public_defaults="public by default" in layers,
        find={HEALTH: health, "other.Service": other}.get,
    )
    assert policies.for_method(CHECK) == Entry(CHECK, *(LAYERS[layers[0]] if layers else NO_LAYER))


def test_rules_and_options_of_one_method_are_not_mixed() -> None:
    rule = Policy(audiences=("billing",))
    policies = Policies(rules=[Rule([f"{DEFAULTED}/Inherits"], rule)])
    assert policies.for_method(f"/{DEFAULTED}/Inherits").policy is rule
    assert policies.for_method(f"/{DEFAULTED}/Empty").policy == AUTHENTICATED


def test_a_rule_may_be_for_several_methods_with_or_without_a_slash_before_them() -> None:
    policies = Policies(rules=[Rule((f"/{SILENT}/One", f"{DEFAULTED}/*"), DENY), Rule([f"{SILENT}/Two"], PUBLIC)])
    denied, public = Entry(f"/{SILENT}/One", DENY, "rules[0]"), Entry(f"/{SILENT}/Two", PUBLIC, "rules[1]")
    assert [policies.for_method(f"/{SILENT}/{name}") for name in ("One", "Two")] == [denied, public]
    assert {policies.for_method(f"/{DEFAULTED}/{name}").source for name in ("Inherits", "Replaces", "Empty")} == {"rules[0]"}


def test_a_rule_without_a_policy_requires_a_valid_token() -> None:
    assert Policies(rules=[Rule([CHECK])]).for_method(CHECK) == Entry(CHECK, AUTHENTICATED, "rules[0]")


def test_health_and_reflection_are_public_by_default_and_nothing_else_is() -> None:
    public = {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
    assert public == PUBLIC_BY_DEFAULT
    assert Policies().entries() == tuple(Entry(method, PUBLIC, "public by default") for method in sorted(public))
    assert Policies(public_defaults=False).entries() == ()
    assert {Policies(public_defaults=False).for_method(method) for method in public} == {
        Entry(method, AUTHENTICATED, "default") for method in public
    }


def test_further_methods_are_added_to_the_public_ones_or_stand_alone() -> None:
    one = f"/{SILENT}/One"
    assert {entry.method for entry in Policies(public_methods=iter([one])).entries()} == PUBLIC_BY_DEFAULT | {one}
    alone = Policies(public_methods=(one, one), public_defaults=False)
    assert alone.entries() == (Entry(one, PUBLIC, "public_methods"),)
    assert alone.for_method(f"/{SILENT}/Two").policy == AUTHENTICATED


# -- names, exactly ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "",
        "/",
        f"{SILENT}/One",
        f"//{SILENT}/One",
        f"x{SILENT}/One",
        f"/{SILENT}/One/",
        f"/{SILENT}/one",
        f"/{SILENT}/One\0",
        f"/{SILENT}/OneMore",
        f"/{SILENT}.evil/One",
        f"/evil.{SILENT}/One",
        f"/{SILENT.upper()}/One",
    ],
)
def test_a_name_that_is_not_exactly_the_methods_has_nothing_of_its_policy(method: str) -> None:
    policies = Policies(services=[policies_pb2], rules=[Rule([f"{SILENT}/One"], PUBLIC)], public_methods=[f"/{SILENT}/Two"])
    assert policies.for_method(method) == Entry(method, AUTHENTICATED, "default")
    assert policies.for_method(f"/{SILENT}/One").policy is PUBLIC


@pytest.mark.parametrize(
    "method",
    [
        f"{OPTIONS}/Public",
        f"x{OPTIONS}/Public",
        f"//{OPTIONS}/Public",
        f"/{OPTIONS}/Public/",
        f"/{OPTIONS}/public",
    ],
)
def test_a_name_that_is_not_exactly_the_methods_has_nothing_of_its_option(method: str) -> None:
    for services in ([], [policies_pb2]):
        assert Policies(services=services).for_method(method).policy == AUTHENTICATED
        assert Policies(services=services, strict=False).for_method(f"/{OPTIONS}/Public").policy == PUBLIC


def test_a_rule_for_the_rest_of_a_service_reaches_names_that_only_a_generic_handler_knows() -> None:
    def add_to_server(_servicer: Any, server: Any) -> None:
        server.add_registered_method_handlers("by.hand.Service", {"Do": None})

    policies = Policies(services=[add_to_server, policies_pb2], rules=[Rule(["by.hand.Service/*", f"{SILENT}/*"], DENY)])
    for method in ("/by.hand.Service/Hidden", "/by.hand.Service/a/b", f"/{SILENT}/Hidden", f"/{SILENT}/"):
        assert policies.for_method(method) == Entry(method, DENY, "rules[0]")


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_has_the_methods_of_the_services_those_that_rules_name_and_the_public_ones() -> None:
    policies = Policies(
        services=[policies_pb2_grpc.add_SilentServiceServicer_to_server],
        rules=[Rule([f"{DEFAULTED}/Empty"], DENY)],
        public_methods=["/no.proto.Service/Do"],
    )
    assert {entry.method: entry.source for entry in policies.entries()} == {
        f"/{SILENT}/One": "default",
        f"/{SILENT}/Two": "default",
        f"/{DEFAULTED}/Empty": "rules[0]",
        "/no.proto.Service/Do": "public_methods",
        **dict.fromkeys(PUBLIC_BY_DEFAULT, "public by default"),
    }
    assert [entry.method for entry in policies.entries()] == sorted(entry.method for entry in policies.entries())


def test_a_method_is_known_when_it_is_in_the_table() -> None:
    policies = Policies(services=[SILENT])
    for method in (f"/{SILENT}/Three", f"/{DEFAULTED}/Empty", "/made.up/Name"):
        policies.for_method(method)
        assert not policies.is_known(method)
    assert all(policies.is_known(entry.method) for entry in policies.entries())
    assert policies.is_known(f"/{SILENT}/One")


class Counting:
    """Knows services, and counts who asks."""

    def __init__(self, *services: Declared) -> None:
        self.services = {service.name: service for service in services}
        self.asked = 0

    def __call__(self, name: str) -> Declared | None:
        self.asked += 1
        return self.services.get(name)


def test_a_service_that_is_not_listed_is_looked_up_once_for_a_method() -> None:
    find = Counting(Declared("late.Service", {"Do": tagged(1), "Else": None}, tagged(2)))
    policies = Policies(find=find, public_defaults=False)
    assert find.asked == 0
    for _ in range(3):
        assert policies.for_method("/late.Service/Do") == Entry("/late.Service/Do", tagged(1), "proto: method option")
        assert policies.for_method("/late.Service/Else").policy == tagged(2)
        assert policies.for_method("/late.Service/Unheard").policy == tagged(2)
    assert find.asked == 3


def test_a_service_that_was_asked_for_before_it_was_imported_still_gets_its_policy() -> None:
    """Or else a caller who comes early would leave its methods open to every token."""
    find = Counting()
    policies = Policies(find=find)
    assert policies.for_method("/late.Service/Do").policy == AUTHENTICATED
    find.services["late.Service"] = Declared("late.Service", {"Do": DENY})
    assert policies.for_method("/late.Service/Do").policy == DENY


def test_names_that_callers_make_up_do_not_pile_up() -> None:
    find = Counting(Declared("generic.Service", {}, DENY))
    policies = Policies(find=find)
    find.asked = 0
    for number in range(MAX_LOOKED_UP):
        policies.for_method(f"/generic.Service/M{number}")
    policies.for_method("/generic.Service/M0")
    assert find.asked == MAX_LOOKED_UP
    policies.for_method("/generic.Service/OneTooMany")
    assert policies.for_method("/generic.Service/M0").policy == DENY
    assert find.asked == MAX_LOOKED_UP + 2  # forgotten


def test_a_wrong_option_that_is_looked_up_late_is_an_error_each_time() -> None:
    def find(_name: str) -> Declared | None:
        raise ConfigurationError("of the option")

    policies = Policies(find=find, public_defaults=False)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"^of the option$"):
            policies.for_method("/late.Service/Do")


# -- strict ------------------------------------------------------------------------------------------------------------


def test_strict_lists_every_method_that_has_neither_rule_nor_option() -> None:
    assert fault(services=[policies_pb2], strict=True) == (
        f"strict: no rule and no option for /{OPTIONS}/Plain, /{SILENT}/One, /{SILENT}/Two; "
        "give each an option in its proto, or a Rule"
    )


@pytest.mark.parametrize(
    "saying",
    [
        {"rules": [Rule([f"{OPTIONS}/Plain", f"{SILENT}/*"])]},
        {"rules": [Rule([f"{OPTIONS}/*", f"{SILENT}/*"], DENY)]},
        {"rules": [Rule([f"{SILENT}/One"])], "public_methods": [f"/{SILENT}/Two", f"/{OPTIONS}/Plain"]},
    ],
)
def test_strict_is_content_when_each_method_has_a_word(saying: Mapping[str, Any]) -> None:
    policies = Policies(services=[policies_pb2], strict=True, **saying)
    assert "default" not in {entry.source for entry in policies.entries()}


def test_strict_needs_to_know_what_is_served() -> None:
    assert fault(strict=True) == "strict: needs services, the list of what the server serves"


def test_strict_counts_what_is_public_by_default() -> None:
    assert Policies(services=[health_pb2], strict=True).for_method(CHECK).policy is PUBLIC
    assert fault(services=[health_pb2], strict=True, public_defaults=False).startswith(
        "strict: no rule and no option for /grpc.health.v1.Health/Check, "
    )


@pytest.mark.parametrize(
    "method",
    [f"/{SILENT}/Three", f"/{OPTIONS}/Public", f"{SILENT}/One", "/made.up.Service/Do", "", "/"],
)
def test_strict_denies_what_is_not_among_the_services(method: str) -> None:
    policies = Policies(services=[SILENT], rules=[Rule([f"{SILENT}/*", f"{OPTIONS}/*"])], strict=True)
    for _ in range(2):
        assert policies.for_method(method) == Entry(method, DENY, "strict: not among the services")
    assert policies.for_method(f"/{SILENT}/One").policy.access is Access.AUTHENTICATED
    assert policies.for_method(CHECK).policy is PUBLIC


# -- errors ------------------------------------------------------------------------------------------------------------

PLACES: dict[str, Callable[[Any], Mapping[str, Any]]] = {
    "rules[0]: methods: ": lambda name: {"rules": [Rule([name])]},
    "public_methods: ": lambda name: {"public_methods": [name]},
}


def errors() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Texts, and arguments that they are due to."""
    listed: Iterable[Any] = [policies_pb2]
    no_service = "there is no such service{}; its generated module has to be imported before"
    for name, nearest in (("policies.v1.SilentServices", f"; did you mean {SILENT}?"), ("shop.Till", "")):
        text = f"rules[0]: methods: '{name}/One': {no_service.format(nearest)}"
        yield text, {"services": listed, "rules": [Rule([f"{name}/One"])]}
        yield text.replace("/One", "/*"), {"services": listed, "rules": [Rule([f"{name}/*"])]}
    for name, nearest in (("Evrything", "; did you mean Everything?"), ("public", "; did you mean Public?"), ("Xyz", "")):
        yield (
            f"rules[0]: methods: '{OPTIONS}/{name}': {OPTIONS} has no such method{nearest}",
            {"rules": [Rule([f"{OPTIONS}/{name}"])]},
        )
        yield (
            f"public_methods: '/{OPTIONS}/{name}': {OPTIONS} has no such method{nearest}",
            {"public_methods": [f"/{OPTIONS}/{name}"]},
        )
    twice = f"'{SILENT}/One' has a rule already, in rules[0]; merge the two"
    yield f"rules[1]: {twice}", {"rules": [Rule([f"/{SILENT}/One"], DENY), Rule([f"{SILENT}/One"], PUBLIC)]}
    yield f"rules[0]: {twice}", {"rules": [Rule([f"{SILENT}/One", f"{SILENT}/One"])]}
    yield (
        f"rules[1]: {twice.replace('/One', '/*')}",
        {"rules": [Rule([f"{SILENT}/*"]), Rule([f"{SILENT}/*"], DENY)]},
    )
    yield (
        f"public_methods: '/{SILENT}/One' has a rule already, in rules[0]; drop one",
        {"rules": [Rule([f"{SILENT}/One"], DENY)], "public_methods": [f"/{SILENT}/One"]},
    )
    expected = "expected a list of names, package.Service/Method or package.Service/*"
    empty: tuple[Any, ...] = ((), [], f"{SILENT}/One", "")
    for methods in empty:
        yield f"rules[1]: methods: {expected}", {"rules": [Rule([CHECK]), Rule(methods)]}
    for policy in (None, "deny", {"access": "deny"}, Access.DENY):
        yield "rules[0]: policy: expected a Policy", {"rules": [Rule([CHECK], policy)]}  # type: ignore[arg-type]
    one_string = "public_methods: expected a list of method names, got one string; put it into a list"
    yield one_string, {"public_methods": CHECK}
    for name in (f"/{SILENT}/*", f"{SILENT}/One"):
        yield (
            f"public_methods: '{name}' is not a full method name; write it as '/package.Service/Method'",
            {"public_methods": [name]},
        )
    yield (
        "services: 'no.such.Service' is unknown; import its generated module first, and use its full name",
        {"services": ["no.such.Service"]},
    )


@pytest.mark.parametrize(("text", "arguments"), list(errors()))
def test_what_is_wrong_is_said_with_its_place_and_how_to_mend_it(text: str, arguments: Mapping[str, Any]) -> None:
    assert fault(**arguments) == text


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "*",
        "/*",
        "/shop.v1.CatalogService/",
        "/shop.v1.CatalogService",
        "/shop.v1.CatalogService/ListItems/",
        "/shop.v1.CatalogService/ListItems\n",
        " /shop.v1.CatalogService/ListItems",
        "/shop..CatalogService/ListItems",
        "/.CatalogService/ListItems",
        "/shop.v1.CatalogService.ListItems",
        "//ListItems",
        "//shop.v1.CatalogService/ListItems",
        "/shop.1v.CatalogService/ListItems",
        "/shop.v1.Kat\u00e4log/ListItems",
        "/shop.v1.CatalogService/List.Items",
        "/shop.v1.CatalogService/List*",
        "/shop.*/ListItems",
        None,
        7,
    ],
)
def test_a_name_that_could_never_match_is_a_configuration_error_that_shows_it(name: Any, place: str) -> None:
    assert fault(**PLACES[place](name)) == (f"{place}{name!r} is not a full method name; write it as '/package.Service/Method'")


@pytest.mark.parametrize("name", ["/shop.v1.CatalogService/ListItems", "/Service/Method", "/_a.b_2.C/D_", CHECK])
def test_a_method_may_be_public_without_a_proto(name: str) -> None:
    assert Policies(public_methods=[name], public_defaults=False).entries() == (Entry(name, PUBLIC, "public_methods"),)


def test_the_policy_that_requires_nothing_further_is_one_object_wherever_it_comes_from() -> None:
    policies = Policies(services=[identity_pb2], rules=[Rule(["grpc_bearer.v1.IdentityService/WhoAmI"], Policy())])
    for method in ("WhoAmI", "WatchIdentity"):  # by a rule, and by the service's option
        assert policies.for_method(f"/grpc_bearer.v1.IdentityService/{method}").policy is AUTHENTICATED


@pytest.mark.parametrize("methods", [5, None, True])
def test_what_is_no_list_of_methods_at_all_is_refused_with_advice_too(methods: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^rules\[0\]: methods: expected a list of names"):
        Policies(rules=[Rule(methods)])
    with pytest.raises(ConfigurationError, match=r"^public_methods: expected a list of method names"):
        Policies(public_methods=methods)


def test_rules_are_told_from_services_by_name_and_never_by_their_place() -> None:
    by_place: Any = Policies
    with pytest.raises(TypeError):
        by_place([Rule(["shop.v1.CatalogService/*"])])


@pytest.mark.parametrize("value", [Rule(["a.B/C"]), Entry("/a.B/C", PUBLIC, "default")])
def test_a_rule_and_an_entry_cannot_be_changed_in_their_place(value: Any) -> None:
    with pytest.raises(AttributeError):
        value.policy = PUBLIC

"""Which methods need no token: those that are named, exactly, and no others."""

from __future__ import annotations

import pytest

from grpc_bearer import ConfigurationError
from grpc_bearer.policy import DEFAULT_PUBLIC_METHODS, public_methods

ITEMS = "/shop.v1.CatalogService/ListItems"


def test_health_and_reflection_are_public_by_default() -> None:
    assert public_methods([], with_defaults=True) == {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }


def test_further_methods_are_added_to_the_defaults_or_stand_alone() -> None:
    assert public_methods([ITEMS], with_defaults=True) == DEFAULT_PUBLIC_METHODS | {ITEMS}
    assert public_methods(iter([ITEMS]), with_defaults=False) == {ITEMS}
    assert public_methods((), with_defaults=False) == frozenset()


@pytest.mark.parametrize("name", [ITEMS, "/Service/Method", "/_a.b_2.C/D_", *sorted(DEFAULT_PUBLIC_METHODS)])
def test_a_full_method_name_is_taken(name: str) -> None:
    assert public_methods([name], with_defaults=False) == {name}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "*",
        "/*",
        "/shop.v1.CatalogService/*",
        "/shop.v1.CatalogService/",
        "/shop.v1.CatalogService",
        "shop.v1.CatalogService/ListItems",
        "/shop.v1.CatalogService/ListItems/",
        "/shop.v1.CatalogService/ListItems\n",
        " /shop.v1.CatalogService/ListItems",
        "/shop..CatalogService/ListItems",
        "/.CatalogService/ListItems",
        "/shop.v1.CatalogService.ListItems",
        "//ListItems",
        "/shop.1v.CatalogService/ListItems",
        "/shop.v1.Kat\u00e4log/ListItems",
        "/shop.v1.CatalogService/List.Items",
    ],
)
def test_a_name_that_could_never_match_is_a_configuration_error_that_shows_it(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        public_methods([ITEMS, name], with_defaults=True)
    assert str(caught.value) == f"public_methods: {name!r} is not a full method name; write it as '/package.Service/Method'"


def test_one_string_in_place_of_a_list_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="expected a list of method names, got one string"):
        public_methods(ITEMS, with_defaults=True)

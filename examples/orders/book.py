"""The orders, in memory: what the service is about. Nothing here knows of tokens."""

import itertools

from orders.v1.orders_pb2 import Order


class Book:
    """All orders, by name."""

    def __init__(self) -> None:
        self._numbers = itertools.count(3)
        self._orders = {
            "o-1": Order(id="o-1", item="tea", ordered_by="alice"),
            "o-2": Order(id="o-2", item="milk", ordered_by="bob"),
        }

    def get(self, name: str) -> Order | None:
        return self._orders.get(name)

    def all(self) -> list[Order]:
        return list(self._orders.values())

    def add(self, item: str, ordered_by: str | None) -> str:
        name = f"o-{next(self._numbers)}"
        self._orders[name] = Order(id=name, item=item, ordered_by=ordered_by)
        return name

    def delete(self, name: str) -> None:
        self._orders.pop(name, None)

    def clear(self) -> None:
        self._orders.clear()

    def csv(self) -> str:
        return "".join(f"{order.id},{order.item},{order.ordered_by}\n" for order in self.all())

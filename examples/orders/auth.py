"""Whose tokens are accepted, and that every method has a rule. Both servers share it."""

import os

from orders.v1 import orders_pb2

from grpc_bearer import Authenticator, Issuer, Policies

LISTEN = os.environ.get("ORDERS_LISTEN", "127.0.0.1:50061")
ISSUER = os.environ.get("ORDERS_ISSUER", "http://127.0.0.1:50052")  # `make issuer`; in earnest, your identity provider


def authenticator() -> Authenticator:
    """The rules are those of the proto. Strict: the server does not start while a method is without one."""
    return Authenticator(
        [Issuer(ISSUER, audiences=["orders"], leeway_s=0)],  # no leeway: issuer and service share a clock here
        policies=Policies(services=[orders_pb2], strict=True),
    )


def warm(auth: Authenticator) -> None:
    """Fetch the issuer's keys before the first call comes. Without them calls get UNAVAILABLE, until the issuer is there."""
    if not auth.warm(timeout_s=5):
        print(f"{ISSUER} gives no keys; is `make issuer` running?", flush=True)

"""One attack: what is sent, what has to be answered, where it comes from, and the right call that it stands next to."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from grpc_bearer.errors import OUTCOMES, Reason

Metadata = tuple[tuple[str, str | bytes], ...]

MISSING: Final = Reason.TOKEN_MISSING
MALFORMED: Final = Reason.TOKEN_MALFORMED
INVALID: Final = Reason.TOKEN_INVALID
EXPIRED: Final = Reason.TOKEN_EXPIRED
EARLY: Final = Reason.TOKEN_NOT_YET_VALID
ACCEPTED: Final = None


def bearer(token: str) -> Metadata:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def subject_of(metadata: Metadata) -> str:
    """`sub` of the token that a right call carries."""
    (value,) = [value for key, value in metadata if key == "authorization"]
    assert isinstance(value, str)
    payload = value.split()[-1].split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])


@dataclass(frozen=True)
class Case:
    """`metadata`: the call's; octets under a key without `-bin` are sent by a raw HTTP/2 client, whatever they are.

    `reason`: of the refusal, None where the call is accepted on purpose. `neighbour`: of a right call, as near as there is.
    """

    group: str
    name: str
    metadata: Metadata
    reason: Reason | None
    source: str
    neighbour: Metadata

    @property
    def code(self) -> int:
        """The gRPC status code that has to be answered."""
        return 0 if self.reason is None else int(OUTCOMES[self.reason].code)

    @property
    def raw(self) -> bool:
        """Whether no gRPC library would send this."""
        return any(isinstance(value, bytes) and not key.endswith("-bin") for key, value in self.metadata)


@dataclass
class Group:
    """Collects the cases of one class. `source` stands for those that name none of their own."""

    name: str
    source: str
    cases: list[Case] = field(default_factory=list)

    def call(self, name: str, metadata: Metadata, reason: Reason | None, right: str, source: str = "") -> None:
        """A case by its metadata; `right` is the neighbour's token."""
        self.cases.append(Case(self.name, name, metadata, reason, source or self.source, bearer(right)))

    def token(self, name: str, token: str | bytes, reason: Reason | None, right: str, source: str = "") -> None:
        """A case by its token; octets go over the wire as they are."""
        raw: Metadata = (("authorization", b"Bearer " + token),) if isinstance(token, bytes) else bearer(token)
        self.call(name, raw, reason, right, source)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

"""The services of `tests/protos/policies`, whose methods say in every way who may call."""

from __future__ import annotations

from policies.v1 import policies_pb2

_SERVICES = policies_pb2.DESCRIPTOR.services_by_name  # imported: that is what makes the options known

OPTIONS = _SERVICES["MethodsService"].full_name
"""Its methods say for themselves, in every way that the option has."""

DEFAULTED = _SERVICES["DefaultedService"].full_name
"""It says what its methods require where they do not."""

SILENT = _SERVICES["SilentService"].full_name
"""It says nothing."""

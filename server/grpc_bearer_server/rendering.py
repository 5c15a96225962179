"""What the tools print: on a terminal in colour and within its width, elsewhere one line each, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from itertools import groupby
from typing import Any, Final

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from grpc_bearer import Access, IssuerStatus, Policy, Streams
from grpc_bearer.explain import Explanation
from grpc_bearer.explain_checks import one_of, plain, rule_text
from grpc_bearer.policy.table import Entry

WIDTH_OF_A_FILE: Final = 10_000
"""Where no terminal is, nothing is folded: that is for grep."""

_ACCESS_STYLES: Final = {Access.PUBLIC: "yellow", Access.OPTIONAL: "yellow", Access.DENY: "red", Access.AUTHENTICATED: "green"}
_OUTCOMES: Final = {"passed": ("✓", "green"), "failed": ("✗", "bold red"), "not reached": ("·", "dim")}


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, default=_as_json))


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):  # Claims are one, before they are a dataclass
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"no JSON for {type(value).__name__}")


def entry_json(entry: Entry) -> dict[str, Any]:
    """A line of the policy table as JSON data."""
    return {"method": entry.method, "source": entry.source, **asdict(entry.policy)}


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON data."""
    return {
        "accepted": explanation.accepted,
        "reason": explanation.reason,
        "detail": explanation.detail,
        "advice": explanation.advice,
        "policy": None if explanation.entry is None else entry_json(explanation.entry),
        "steps": explanation.steps,
        "claims": explanation.claims,
    }


def requirements(policy: Policy) -> list[str]:
    """What a policy requires beyond its access, and what it says of streams where that is not the default: a few words each."""
    parts = [f"scopes {' '.join(policy.scopes)}"] if policy.scopes else []
    if policy.any_scopes:
        parts.append(f"scope {one_of(policy.any_scopes)}")
    parts += [f"claim {rule.name}: {rule_text(rule)}" for rule in policy.claims]
    if policy.issuers:
        parts.append(f"issuer {one_of(policy.issuers)}")
    if policy.audiences:
        parts.append(f"audience {one_of(policy.audiences)}")
    if policy.max_age_s is not None:
        parts.append(f"authenticated at most {policy.max_age_s:g} s ago")
    if policy.streams is Streams.FINISH:
        parts.append("streams may outlive the token")
    elif policy.stream_grace_s:
        parts.append(f"streams may outlive the token by {policy.stream_grace_s:g} s")
    return parts


def print_policies(entries: Sequence[Entry]) -> None:
    """Print the policy table: by service on a terminal, else with full names."""
    if not _console().is_terminal:
        table = _table("METHOD", "ACCESS", "FROM", "REQUIRES")
        for entry in entries:
            table.add_row(entry.method, entry.policy.access, entry.source, "; ".join(requirements(entry.policy)))
        _print(table)
        return
    widths = [max(len(_method(entry)) for entry in entries) + 2, 13, max(len(entry.source) for entry in entries), 0]
    _print(_table("METHOD", "ACCESS", "FROM", "REQUIRES", widths=widths))
    for service, of_service in groupby(entries, _service):
        table = _table("", "", "", "", widths=widths)
        for entry in of_service:
            access = Text(entry.policy.access, _ACCESS_STYLES[entry.policy.access])
            table.add_row(f"  {_method(entry)}", access, Text(entry.source, "dim"), "\n".join(requirements(entry.policy)))
        _print(Text(service, "bold"), table)


def _service(entry: Entry) -> str:
    return entry.method.rpartition("/")[0].removeprefix("/")


def _method(entry: Entry) -> str:
    return entry.method.rpartition("/")[2]


def print_explanation(explanation: Explanation) -> None:
    """Print each check and the verdict."""
    table = _table("", "CHECK", "EXPECTED", "FOUND")
    for step in explanation.steps:
        mark, style = _OUTCOMES[step.outcome]
        table.add_row(Text(mark, style), Text(step.name, style), step.expected, step.found)
    _print(table, "")
    if explanation.accepted:
        _print(Text("accepted", "bold green"))
        return
    _print(Text(f"refused: {explanation.reason}: {explanation.detail}", "bold red"))
    _print(Text(f"what to do: {explanation.advice}"))


def print_issuers(statuses: Iterable[IssuerStatus]) -> None:
    """Print what a fetch of each issuer's keys brought."""
    for status in statuses:
        if status.ready:
            kids = ", ".join("(no kid)" if kid is None else plain(kid) for kid in status.key_ids)
            count = f"{len(status.key_ids)} key{'s' if len(status.key_ids) > 1 else ''}"
            _print(Text.assemble(("✓ ", "green"), f"issuer {status.issuer}: {count}: {kids}"))
        else:
            error = status.last_error or "no answer in time"
            _print(Text.assemble(("✗ ", "bold red"), f"issuer {status.issuer}: no keys: {error}"))
        for line in status.skipped:
            _print(Text.assemble(("! ", "yellow"), f"issuer {status.issuer}: left out: {line}"))


def _table(*columns: str, widths: Sequence[int] | None = None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column, width in zip(columns, widths or [0] * len(columns), strict=True):
        table.add_column(column, overflow="fold", min_width=width or None)
    return table


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    return console


def _print(*parts: RenderableType) -> None:
    console = _console()
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    for line in captured.get().splitlines():
        encoding = console.encoding
        click.echo(line.rstrip().encode(encoding, "backslashreplace").decode(encoding), color=console.is_terminal)

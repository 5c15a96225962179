"""Says whether a lock names a version with a known vulnerability, and does not take silence for an answer.

    python tools/audit.py [--required] [--pip-audit COMMAND] LOCK

pip-audit says "No known vulnerabilities found", with exit status 0, also where its service knows none of the versions: a mirror
without advisories answers 404 to each (measured, 2.10). So each service's report is read, not its exit status, and a version
counts as audited once a service has answered for it.

Exit status 0: no advisory is known of any version that could be looked up, or none could be, which is said loudly; 1: an
advisory, or with `--required` a version that nobody answered for; 2: pip-audit or the lock cannot be used.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
SERVICES: Final = ("pypi", "osv")
TIMEOUT_S: Final = 180.0
REQUEST_TIMEOUT_S: Final = 10


class UnusableError(Exception):
    """The audit cannot be made at all: it is no answer of a service that is missing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An advisory of one version."""

    name: str
    version: str
    advisory: str
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        fixed = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "not fixed yet"
        return f"{self.name} {self.version}: {self.advisory}, {fixed}"


@dataclass(frozen=True, slots=True)
class Audit:
    """What came of it. `audited`, `unknown`: names of distributions; `silent`: services that were of no use, and why."""

    audited: frozenset[str]
    unknown: frozenset[str]
    findings: tuple[Finding, ...]
    silent: tuple[str, ...]


def report_of(document: str) -> tuple[frozenset[str], frozenset[str], tuple[Finding, ...]]:
    """A report of pip-audit: what was audited, what was skipped, what was found. Raises `UnusableError`."""
    try:
        dependencies: list[dict[str, Any]] = json.loads(document)["dependencies"]
        audited = frozenset(each["name"] for each in dependencies if "vulns" in each)
        skipped = frozenset(each["name"] for each in dependencies) - audited
        findings = tuple(
            Finding(each["name"], each["version"], vulnerability["id"], tuple(vulnerability["fix_versions"]))
            for each in dependencies
            for vulnerability in each.get("vulns", ())
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableError(f"pip-audit wrote a report that cannot be read ({type(error).__name__})") from None
    return audited, skipped, findings


def _run(command: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except OSError as error:
        raise UnusableError(f"{command[0]} cannot be run ({type(error).__name__}): make audit sets it up") from None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1][:300]


def audit(pip_audit: Path, lock: Path) -> Audit:
    """Ask each service until every version is audited. Raises `UnusableError`."""
    command = [str(pip_audit), "--require-hashes", "--disable-pip", "--progress-spinner", "off", "--requirement", str(lock)]
    tried = _run(command, "--dry-run")  # without the network: whatever fails after this is the service's
    if tried.returncode != 0:
        raise UnusableError(f"pip-audit cannot use {lock.name}: {_last_line(tried.stderr)}")
    audited: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    findings: dict[tuple[str, str], Finding] = {}
    silent = []
    for service in SERVICES:
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "report.json"
            options = ("--vulnerability-service", service, "--timeout", str(REQUEST_TIMEOUT_S), "--format", "json", "--output")
            try:
                said = _last_line(_run(command, *options, str(written)).stderr)
            except subprocess.TimeoutExpired:
                said = f"no answer in {TIMEOUT_S:.0f} s"
            if not written.exists():
                silent.append(f"{service}: {said}")
                continue
            answered, skipped, found = report_of(written.read_text(encoding="utf-8"))
        audited |= answered
        named |= answered | skipped
        findings |= {(each.name, each.advisory): each for each in found}
        if not skipped:
            break
        if not answered:
            silent.append(f"{service}: it knows none of these versions")
    return Audit(audited, named - audited, tuple(findings.values()), tuple(silent))


def lines_of(result: Audit, lock: str) -> list[str]:
    """The outcome in words."""
    lines = [str(finding) for finding in result.findings]
    if result.audited:
        found = f"{len(result.findings)} known vulnerabilities" if result.findings else "no known vulnerability"
        lines.append(f"{lock}: {found} in {len(result.audited)} versions that were looked up")
    else:
        lines.append(f"{lock}: NOT AUDITED: no advisory service can be reached from here, which says nothing of the versions")
    if result.audited and result.unknown:
        lines.append(f"{lock}: NOT AUDITED, because no service knows them: {', '.join(sorted(result.unknown))}")
    if result.unknown or not result.audited:
        lines += result.silent
    return [f"audit: {line}" for line in lines]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Look for known vulnerabilities in the versions that a lock names.")
    parser.add_argument("lock", type=Path)
    parser.add_argument("--required", action="store_true", help="fail where a version could not be looked up, too")
    parser.add_argument("--pip-audit", type=Path, default=ROOT / ".venv-audit" / "bin" / "pip-audit", metavar="COMMAND")
    options = parser.parse_args(arguments)
    try:
        result = audit(options.pip_audit, options.lock)
    except UnusableError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines_of(result, options.lock.name)))
    unanswered = bool(result.unknown) or not result.audited
    return 1 if result.findings or (options.required and unanswered) else 0


if __name__ == "__main__":
    sys.exit(main())

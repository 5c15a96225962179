"""`tools/audit.py` against a stand-in for pip-audit that says what the real one was seen to say (2.10)."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools.audit import main

# Answers a dry run with `dry-run.status`, and a service with the report and the status that are laid out for it.
STAND_IN = """#!{python} -I
import pathlib, sys
given = pathlib.Path({folder!r})
def option(name): return sys.argv[sys.argv.index(name) + 1]
assert option("--requirement").endswith(".lock"), sys.argv
if "--dry-run" in sys.argv:
    print("ERROR:pip_audit._cli:requirement nonsense does not contain a hash", file=sys.stderr)
    sys.exit(int((given / "dry-run.status").read_text()))
service = option("--vulnerability-service")
with open(given / "asked", "a") as asked:
    asked.write(service + "\\n")
report = given / (service + ".json")
if not report.exists():
    sys.exit("requests.exceptions.ConnectionError: Failed to resolve the service's name")
pathlib.Path(option("--output")).write_text(report.read_text())
sys.exit('"id"' in report.read_text())
"""
GOOD: dict[str, Any] = {"name": "idna", "version": "3.20", "vulns": []}
BAD: dict[str, Any] = {
    "name": "requests",
    "version": "2.19.0",
    "vulns": [
        {"id": "PYSEC-2018-28", "fix_versions": ["2.20.0"], "aliases": ["CVE-2018-18074"], "description": "…"},
        {"id": "PYSEC-0000-0", "fix_versions": [], "aliases": [], "description": "…"},
    ],
}


def unknown(name: str) -> dict[str, Any]:
    return {"name": name, "skip_reason": f"Dependency not found on PyPI and could not be audited: {name} (1.0)"}


@dataclass(frozen=True)
class Audited:
    """How the tool ended, what it said, and which services it asked."""

    status: int
    out: str
    err: str
    asked: list[str]


class Auditing:
    """Runs the tool over services that answer so; None: one that cannot be reached."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture
        self._stand_in = folder / "pip-audit"
        self._stand_in.write_text(STAND_IN.format(python=sys.executable, folder=str(folder)))
        self._stand_in.chmod(0o700)

    def __call__(
        self,
        *arguments: str,
        pypi: list[dict[str, Any]] | str | None = None,
        osv: list[dict[str, Any]] | str | None = None,
        dry_run: int = 0,
    ) -> Audited:
        (self.folder / "dry-run.status").write_text(str(dry_run))
        (self.folder / "asked").write_text("")
        for service, report in (("pypi", pypi), ("osv", osv)):
            if report is not None:
                text = report if isinstance(report, str) else json.dumps({"dependencies": report, "fixes": []})
                (self.folder / f"{service}.json").write_text(text)
        status = main([*arguments, "--pip-audit", str(self._stand_in), str(self.folder / "dev.lock")])
        out, err = self._capture.readouterr()
        return Audited(status, out, err, (self.folder / "asked").read_text().split())


@pytest.fixture
def auditing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Auditing:
    return Auditing(tmp_path, capsys)


@pytest.mark.parametrize("arguments", [[], ["--required"]])
def test_a_finding_fails_and_is_told_with_the_version_that_mends_it(auditing: Auditing, arguments: list[str]) -> None:
    done = auditing(*arguments, pypi=[GOOD, BAD])
    assert done.status == 1
    assert done.out.splitlines() == [
        "audit: requests 2.19.0: PYSEC-2018-28, fixed in 2.20.0",
        "audit: requests 2.19.0: PYSEC-0000-0, not fixed yet",
        "audit: dev.lock: 2 known vulnerabilities in 2 versions that were looked up",
    ]


@pytest.mark.parametrize("arguments", [[], ["--required"]])
def test_no_finding_passes_and_the_second_service_is_not_asked(auditing: Auditing, arguments: list[str]) -> None:
    done = auditing(*arguments, pypi=[GOOD])
    assert (done.status, done.asked) == (0, ["pypi"])
    assert done.out == "audit: dev.lock: no known vulnerability in 1 versions that were looked up\n"


@pytest.mark.parametrize("pypi", [None, [unknown("idna"), unknown("requests")]], ids=["unreachable", "knows none"])
def test_where_no_service_answers_it_says_that_nothing_was_audited_and_passes_unless_required(
    auditing: Auditing, pypi: list[dict[str, Any]] | None
) -> None:
    done = auditing(pypi=pypi)
    assert (done.status, done.asked) == (0, ["pypi", "osv"])
    first, *services = done.out.splitlines()
    assert first.startswith("audit: dev.lock: NOT AUDITED")
    assert "no known vulnerability" not in done.out
    assert [line.split(":")[1].strip() for line in services] == ["pypi", "osv"]
    assert "Failed to resolve" in services[1]
    assert auditing("--required", pypi=pypi).status == 1


def test_a_finding_of_the_second_service_counts(auditing: Auditing) -> None:
    done = auditing(osv=[GOOD, BAD])
    assert (done.status, done.asked) == (1, ["pypi", "osv"])
    assert "PYSEC-2018-28" in done.out


def test_what_one_service_does_not_know_the_other_is_asked_for(auditing: Auditing) -> None:
    done = auditing(pypi=[GOOD, unknown("requests")], osv=[GOOD, BAD])
    assert done.status == 1
    assert "in 2 versions that were looked up" in done.out
    assert "NOT AUDITED" not in done.out


def test_a_version_that_no_service_knows_is_named(auditing: Auditing) -> None:
    done = auditing(pypi=[GOOD, unknown("requests")])
    assert done.status == 0
    assert "no known vulnerability in 1 versions" in done.out
    assert "NOT AUDITED, because no service knows them: requests" in done.out
    assert auditing("--required", pypi=[GOOD, unknown("requests")]).status == 1


def test_a_lock_that_cannot_be_used_is_not_taken_for_a_service_that_is_missing(auditing: Auditing) -> None:
    done = auditing(pypi=[GOOD], dry_run=1)
    assert (done.status, done.asked) == (2, [])
    assert done.err == (
        "audit: pip-audit cannot use dev.lock: ERROR:pip_audit._cli:requirement nonsense does not contain a hash\n"
    )


@pytest.mark.parametrize(
    "report", ["", "[]", "{}", '{"dependencies": [{}]}', '{"dependencies": [{"name": "a", "vulns": [{}]}]}']
)
def test_a_report_that_cannot_be_read_is_not_taken_for_a_clean_one(auditing: Auditing, report: str) -> None:
    done = auditing(pypi=report)
    assert done.status == 2
    assert "cannot be read" in done.err


def test_a_pip_audit_that_is_not_there_is_not_taken_for_a_service_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--pip-audit", str(tmp_path / "nothing"), str(tmp_path / "dev.lock")]) == 2
    assert "make audit sets it up" in capsys.readouterr().err

"""What holds for every test: a lacking tool skips those that need it, unless all tools are promised (.ci/run)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator

import pytest

TOOLS_REQUIRED = os.environ.get("GRPC_BEARER_REQUIRE_TOOLS") == "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs_tool"):
        missing = [name for name in marker.args if shutil.which(name) is None]
        if missing:
            pytest.skip(f"not on PATH: {', '.join(missing)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if TOOLS_REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where GRPC_BEARER_REQUIRE_TOOLS=1 promises that nothing is: {_why(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if TOOLS_REQUIRED and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, where GRPC_BEARER_REQUIRE_TOOLS=1 promises that nothing is: {_why(report)}"
    return report


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The reason of a skip: pytest keeps it as (file, line, reason)."""
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)

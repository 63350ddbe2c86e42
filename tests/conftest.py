"""What holds for all tests: where it counts, none is left out in silence."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Final

import pytest

# What some machines cannot do, whoever administers them. A test that gives another reason fails where CI is set.
_INCAPABLE: Final = {
    "mounts need root": "the process may not mount",
    "cannot mount here": "a container without the capability to mount",
    "what is deleted makes room on a real disk only": "as above: the small disk is imitated, and that cannot be",
    "foreign owners need root": "the process may not give files away",
    "device nodes need root": "the process may not make them",
    "only root can become nobody": "the process cannot change who it is",
    "needs root": "the process is not root",
    "no user attributes here": "the file system of the temporary directory has none",
    "no holes on this file system": "the file system of the temporary directory has none",
    "not supported here": "the file system has no capabilities and access lists",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if reason.removeprefix("Skipped: ") not in _INCAPABLE:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, but this is where it must run: {reason}"
    return report

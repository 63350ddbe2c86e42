"""What holds for all tests: where it counts, none is left out in silence; and what one leaves behind is taken away."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from backstay.core.memory import collector_at_rest, tune_for_large_buffers
from tests.measuring import Measuring

_MEASURING: Final = pytest.StashKey[Measuring]()

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


_MEMORY: Final = Path("/dev/shm")
_ROOM: Final = 6 << 30  # bytes, several times what the tests have there at a time


def pytest_configure() -> None:
    """Temporary directories lie in memory where there is much of it, unless somebody names a place.

    ext4 does not give the number of a deleted file to another one within seconds, and goes through all of them for each
    new file. With so many files that come and go, that was a tenth of the time of all tests, and a quarter of those
    with servers.
    """
    named = {"TMPDIR", "PYTEST_DEBUG_TEMPROOT"} & os.environ.keys()
    if not named and os.access(_MEMORY, os.W_OK) and min(_free_memory(), _free(_MEMORY)) > _ROOM:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(_MEMORY)


def _free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def _free_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


_LARGE: Final = 700 << 20  # bytes of a process that has room to give back


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """What comes to be by now stays to the end: to search it for garbage again and again would take a third longer."""
    seldom = gc.get_threshold()
    with collector_at_rest():
        found = yield
    tune_for_large_buffers()  # as the first command would
    gc.set_threshold(*seldom)
    _leave_out_what_stays()
    return found


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long begins first: at the end all other processes would wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Before a test it is settled whether that is traced, and behind the last one of a module garbage is searched.

    Errors hold frames, and frames hold large buffers until cycles are searched.
    """
    item.session.stash.setdefault(_MEASURING, Measuring()).begin(item.path)
    found = yield
    if nextitem is None or nextitem.path != item.path:
        if not gc.get_freeze_count():  # a server of the tests has ended, and has let it all be searched again
            _leave_out_what_stays()
        if _resident() > _LARGE:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """A service ends with the tests of its directory: what it logs and opens by itself is not for others to see."""
    found = yield
    if nextitem is None or nextitem.path.parent != item.path.parent:
        until = time.monotonic() + _ENDING_S
        while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("backstay-")]:
            assert time.monotonic() < until, f"threads of a service go on behind the tests of a directory: {left}"
            time.sleep(0.02)
    return found


_ENDING_S: Final = 60  # a machine may be busy; what goes on for ever is found all the same


def _leave_out_what_stays() -> None:
    gc.collect()
    gc.freeze()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

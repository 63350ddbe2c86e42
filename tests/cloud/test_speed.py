"""What listing and moving objects may cost this process."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backstay.storage.cloud_address import parse_address
from backstay.storage.object_store import ObjectStorage

COUNT = 100_000
PACK = 16 << 20
Open = Callable[..., ObjectStorage]


@pytest.fixture
def many() -> Iterator[str]:
    """The endpoint of a server with many objects."""
    script = Path(__file__).with_name("listing_server.py")
    with subprocess.Popen([sys.executable, script, str(COUNT)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


def test_listing_a_hundred_thousand_objects_takes_less_than_three_seconds_of_ours(many: str, s3: Open) -> None:
    store = ObjectStorage(parse_address(f"s3://bucket/x?endpoint={many}"), {})
    before = time.process_time()
    assert sum(1 for _ in store.list("packs/")) == COUNT
    assert time.process_time() - before < 3


def test_eight_uploads_at_once_need_little_memory(weed: str, s3: Open) -> None:
    store = s3(weed)
    bodies = [bytes([number]) * PACK for number in range(8)]
    done = threading.Event()
    highest = [_resident()]

    def watch() -> None:
        while not done.wait(0.01):
            highest.append(_resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda number: store.store(f"packs/{number}", bodies[number]), range(8))]
    done.set()
    watcher.join()
    assert max(highest) - highest[0] < 8 * PACK // 2, "bodies were copied"


def _resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()

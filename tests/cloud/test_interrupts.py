"""Ctrl-C while an object store is silent."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator

import pytest

from backstay.storage.cloud_address import parse_address
from backstay.storage.object_store import ObjectStorage
from tests.cloud.calls import every_call
from tests.cloud.servers import BUCKET
from tests.storage.remote.http_stub import HttpStub, Reply, served


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """A shell that starts the tests in the background has this signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def is_bucket(path: str) -> bool:
    return path.strip("/") == BUCKET


@pytest.mark.parametrize("call", ["list", "stat", "retrieve", "retrieve a part", "delete", "store", "refuses_damage"])
@pytest.mark.parametrize("has_bucket", [True, False])
def test_a_call_ends_although_the_store_does_not_answer(call: str, has_bucket: bool, keys: dict[str, str]) -> None:
    left = threading.Event()
    was_left: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def answer(method: str, path: str, _: dict[str, str]) -> Reply:
        if has_bucket and method == "HEAD" and is_bucket(path):
            return 200, {}, b""
        os.kill(os.getpid(), signal.SIGINT)
        was_left.put(left.wait(5))
        return 500, {}, b""

    with served(HttpStub(answer)) as stub:
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint=http://127.0.0.1:{stub.port}"), keys)
        with pytest.raises(KeyboardInterrupt):
            every_call(store)[call]()
        left.set()
        assert was_left.get()

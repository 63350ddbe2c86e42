"""What is reported of tasks that nobody waits for any more."""

from __future__ import annotations

import asyncio
import gc

import pytest

from backstay.storage.loop_thread import LoopThread


async def leave_a_task_that_fails(error: Exception) -> None:
    async def fail() -> None:
        raise error

    task = asyncio.ensure_future(fail())
    await asyncio.wait([task])
    del task
    gc.collect()


async def leave_a_callback_that_fails(error: Exception) -> None:
    def fail() -> None:
        raise error

    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)


@pytest.fixture
def loop() -> LoopThread:
    return LoopThread("test", told=(OSError,))


def test_what_a_call_has_told_is_not_reported_again(loop: LoopThread, caplog: pytest.LogCaptureFixture) -> None:
    loop.run(leave_a_task_that_fails(ConnectionResetError("gone")))
    loop.close()
    assert caplog.records == []


def test_what_nobody_has_told_is_reported(loop: LoopThread, caplog: pytest.LogCaptureFixture) -> None:
    loop.run(leave_a_task_that_fails(KeyError("a mistake")))
    loop.run(leave_a_callback_that_fails(OSError("in a callback")))
    loop.close()
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["'a mistake'", "in a callback"]

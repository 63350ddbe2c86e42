"""A backup that was stopped goes on where it was, and a Ctrl-C leaves a good repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from backstay.core.events import Event, Progress
from backstay.core.pipeline import Workers
from backstay.errors import Interrupted
from backstay.operations.backup import batches
from backstay.operations.backup import run as backup_module
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.testing import CrashPoint
from tests.crash.scenarios import small_constants
from tests.crash.small_world import MemorySource, World, content, read_back, verified

pytestmark = pytest.mark.crash
TREE = {b"/d%d/f%02d" % (at % 4, at): content(at, 10_000) for at in range(40)}
SIZE = sum(map(len, TREE.values()))


def _at_once(workers: Workers, work: Callable[[Any], Any], item: object) -> Future[Any]:
    """In place of `Workers.submit`: sealing and uploads are done when they are asked for, on every machine."""
    done: Future[Any] = Future()
    try:
        done.set_result(work(item))
    except BaseException as error:  # noqa: BLE001 - goes to whoever asks for the result
        done.set_exception(error)
    return done


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with (
        small_constants(),
        patch.object(Workers, "submit", _at_once),
        patch.object(batches, "BATCH_FILES", 2),
        patch.object(backup_module, "PROGRESS_EVERY_S", 0.0),
    ):
        yield


@pytest.fixture
def world(place: Path) -> World:
    world = World(place / "repository", cache=place / "cache")
    world.create().close()
    return world


def after(count: int, error: BaseException | type[BaseException]) -> Callable[[object], None]:
    """Raises at its call number `count`."""
    calls = 0

    def call(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            raise error

    return call


def resume(world: World) -> int:
    """Back up undisturbed; how many bytes were read."""
    with world.open() as repository:
        result = world.backup(repository, TREE)
        assert read_back(repository, repository.snapshots.live()[-1]) == TREE
        assert (result.files, result.bytes_scanned) == (len(TREE), SIZE)
        assert verified(repository).ok
    return result.bytes_read


@pytest.mark.parametrize("error", [CrashPoint, KeyboardInterrupt])
def test_what_a_checkpoint_covers_is_not_read_again(world: World, error: type[BaseException]) -> None:
    with world.open() as repository, pytest.raises(error):
        world.backup(repository, TREE, MemorySource(TREE, after(30, error)))
    read = resume(world)
    assert 0 < read < SIZE
    world.assert_sound()


def test_several_interruptions_come_to_an_end(world: World) -> None:
    for _ in range(2):
        with world.open() as repository, pytest.raises(CrashPoint):
            world.backup(repository, TREE, MemorySource(TREE, after(24, CrashPoint)))
    assert resume(world) < SIZE
    world.assert_sound()


def test_a_file_that_changed_meanwhile_is_read_again(world: World) -> None:
    with world.open() as repository, pytest.raises(CrashPoint):
        world.backup(repository, TREE, MemorySource(TREE, after(30, CrashPoint)))
    now = TREE | {b"/d0/f00": b"other"}
    with world.open() as repository:
        world.backup(repository, now)
        assert read_back(repository, repository.snapshots.live()[-1]) == now
    world.assert_sound()


def test_a_journal_whose_chunks_are_gone_is_not_believed(world: World) -> None:
    with world.open() as repository, pytest.raises(CrashPoint):
        world.backup(repository, TREE, MemorySource(TREE, after(30, CrashPoint)))
    for path in (world.directory / "index").iterdir():
        path.unlink()
    assert resume(world) == SIZE
    world.assert_sound()


def test_an_entry_that_names_another_chunk_is_not_believed(world: World) -> None:
    with world.open() as repository, pytest.raises(CrashPoint):
        world.backup(repository, TREE, MemorySource(TREE, after(30, CrashPoint)))
    assert world.cache is not None
    (journal,) = world.cache.glob("**/resume/*")
    data = bytearray(journal.read_bytes())
    named = [data.find(repository.keyring.chunk_ids.of(file)) for file in TREE.values()]
    data[max(named) + 31] ^= 1
    journal.write_bytes(data)
    assert 0 < resume(world) < SIZE
    world.assert_sound()


@pytest.mark.parametrize("events", [2, 8, 15])
def test_an_interrupt_in_the_display_leaves_a_good_repository(world: World, events: int) -> None:
    stop = after(events, Interrupted("interrupted"))

    def display(event: Event) -> None:
        if isinstance(event, Progress):
            stop(event)

    with world.open() as repository, pytest.raises(Interrupted):
        run_backup(repository, MemorySource(TREE), BackupOptions(host="host"), events=display)
    with world.open() as repository:
        assert not repository.snapshots.live()
        assert verified(repository).ok
        assert not list(repository.backend.list("sessions/"))
    assert resume(world) < SIZE + (events == 2)  # then nothing had been stored yet
    world.assert_sound()

"""Who asks to stop when everything is done comes too late: the work is told as done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from backstay.core.events import Event, EventSink, Finished
from backstay.errors import Interrupted
from backstay.operations.copies.export import export_snapshots
from backstay.operations.copies.mirror import copy_objects
from backstay.operations.copies.transfer import copy_snapshots
from backstay.operations.repair.run import repair_index, repair_packs, repair_snapshots
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.verify.run import run_verify
from backstay.repository.repository import Repository
from tests.operations.copies import SECRET, SMALL_PACKS, Store, back_up, make_source, open_alone

Operation: TypeAlias = Callable[[Repository, Path, EventSink], Any]


def _restore(repository: Repository, place: Path, events: EventSink) -> Any:
    manifest = repository.snapshots.live()[0]
    return run_restore(repository, manifest, place / "out", RestoreOptions(), events=events)


def _copy(repository: Repository, place: Path, events: EventSink) -> Any:
    with Repository.create(Store("there"), SECRET, environment=SMALL_PACKS) as target:
        return copy_snapshots(repository, target, repository.snapshots.live(), events=events)


OPERATIONS: dict[str, Operation] = {
    "restore": _restore,
    "verify": lambda repository, place, events: run_verify(repository, events=events),  # noqa: ARG005
    "copy": _copy,
    "mirror": lambda repository, place, events: copy_objects(repository, Store("there"), events=events),  # noqa: ARG005
    "export": lambda repository, place, events: export_snapshots(  # noqa: ARG005
        repository, Store("there"), repository.snapshots.live(), events=events
    ),
    "repair index": lambda repository, place, events: repair_index(repository, events=events),  # noqa: ARG005
    "repair packs": lambda repository, place, events: repair_packs(repository, events=events),  # noqa: ARG005
    "repair snapshots": lambda repository, place, events: repair_snapshots(repository, events=events),  # noqa: ARG005
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_who_asks_to_stop_at_the_end_comes_too_late(tmp_path: Path, name: str) -> None:
    store = Store("here")
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, make_source(tmp_path / "source", files=6))
    ends: list[Finished] = []

    def stop_at_the_end(event: Event) -> None:
        if isinstance(event, Finished):
            ends.append(event)
            raise Interrupted("interrupted")

    with open_alone(store) as repository:
        result = OPERATIONS[name](repository, tmp_path, stop_at_the_end)
    assert result is not None
    assert ends

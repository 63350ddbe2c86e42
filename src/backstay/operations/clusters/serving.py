"""Brings WAL to a server that recovers: the next segments lie in its directory before it asks for them.

The server's restore_command is the script of `recovery.stream_script`, which moves a segment from there, and wishes for
one that is not there. Files instead of a socket: a shell and a rename take milliseconds and no library, whoever runs
the server, and what was brought stays when this program is stopped.

Only WAL that was planned is brought, and all of it is checked. A segment that cannot be had stops the server when it
asks for it: it is never told that the WAL ends there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Final

from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.core.pipeline import Workers
from backstay.errors import NotFound, RecoveryFailed, WalGap
from backstay.operations.clusters.plan import WalFile
from backstay.operations.clusters.staging import read_segment
from backstay.repository.repository import Repository
from backstay.repository.wal.store import StoredFile
from backstay.sources.postgres.control_file import read_control
from backstay.sources.postgres.owned_files import OwnedFiles
from backstay.sources.postgres.recovery import ENDED, PLANNED, STAGED, WISHES
from backstay.sources.restore_errors import told

AHEAD: Final = 16  # segments that lie ready
_LOOK_S: Final = 0.01
_GO_ON: Final = "run `backstay pg fetch {}` and start the server again"


@contextmanager
def serving(repository: Repository, data: Path) -> Iterator[None]:
    """Bring WAL on a thread for as long as the context lasts. A segment that could not be had is told as such."""
    stop, failed = Flag(), list[BaseException]()
    service = WalService.open(repository, data)

    def serve() -> None:
        try:
            service.run(stop.is_set)
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits
            failed.append(error)

    thread = Thread(target=serve, name="serve-wal", daemon=True)
    thread.start()
    try:
        yield
    except RecoveryFailed as error:
        if failed:  # which is why the server ended
            raise failed[0] from error
        raise
    finally:
        stop.set()
        thread.join()


@dataclass(slots=True)
class WalService:
    """The WAL of one data directory. `open` makes it; from then on a server there may be started."""

    repository: Repository
    owned: OwnedFiles
    system: int
    names: list[str]
    stored: dict[str, StoredFile]
    events: EventSink
    numbers: dict[str, int] = field(default_factory=dict)
    next: int = 0  # the number of the segment that the server will ask for, as far as can be told
    ready: set[int] = field(default_factory=set)
    coming: dict[int, Future[None]] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)  # tried again when they are asked for
    wished: set[int] = field(default_factory=set)
    taken: int = 0
    segment_size: int = 0

    @classmethod
    def open(cls, repository: Repository, data: Path, *, events: EventSink = ignore) -> WalService:
        """Take up a restore, or what another call left. Raises NotFound when nothing there waits for WAL."""
        waiting = NotFound(
            f"no server that waits for WAL lies in {data}",
            cause=f"there is no {STAGED}/{PLANNED}: it was restored without --wal stream, or has recovered",
            hint="`backstay pg restore --wal stream` makes such a directory",
        )
        try:
            control = read_control(data)
            names = (data / STAGED / PLANNED).read_text().split()
        except (FileNotFoundError, NotADirectoryError):
            raise waiting from None
        except OSError as error:
            raise NotFound(f"cannot look into {data}", cause=error.strerror or str(error)) from error
        if control is None:
            raise NotFound(
                f"the restore to {data} was not finished",
                cause="there is no global/pg_control",
                hint="go on with it: `backstay pg restore --delta`",
            )
        stored = repository.wal.files(control.system)
        made = cls(repository, OwnedFiles(data), control.system, names, stored, events)
        made.numbers = {name: number for number, name in enumerate(names)}
        told(partial(made._forget, ENDED), "begin to serve WAL")
        return made

    @property
    def directory(self) -> Path:
        return self.owned.data / STAGED

    @property
    def _go_on(self) -> str:
        return _GO_ON.format(self.owned.data)

    def run(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Bring WAL until the server has recovered; false if `stopped` ended it before.

        Whoever begins anew brings what the server asks for then. Raises CorruptedBackup, WalGap and others when it
        asks for a segment that cannot be had.
        """
        self.events(Started(operation="serve WAL", total_files=len(self.names)))
        try:
            with Workers(self.repository.environment.threads, "serve") as workers:
                while not self._has_recovered():
                    if stopped():
                        self._end(f"who brought WAL was stopped; {self._go_on}")
                        return False
                    told(partial(self._look, workers), "serve WAL")
                    self.repository.clock.sleep(_LOOK_S)
        except BaseException as error:
            self._end(f"{error}; mend that, then {self._go_on}")
            raise
        finished(self.events, "serve WAL")
        return True

    def _has_recovered(self) -> bool:
        """The server's recovery_end_command takes the directory away."""
        return not self.directory.is_dir()

    def _look(self, workers: Workers) -> None:
        self._settle()  # before the listing: what came behind it would seem to be taken already
        try:
            present = set(os.listdir(self.directory))
            wishes = os.listdir(self.directory / WISHES)
        except FileNotFoundError:
            return  # it has recovered
        self._note_taken(present)
        for name in wishes:
            self._take_wish(name, present)
        for number in [*sorted(self.wished), *range(self.next, min(self.next + AHEAD, len(self.names)))]:
            if number not in self.coming and number not in self.ready and number not in self.failed:
                self.coming[number] = workers.submit(self._bring, number)

    def _settle(self) -> None:
        """Take note of what came. Raises why a segment that is waited for did not."""
        for number in [number for number, future in self.coming.items() if future.done()]:
            error = self.coming.pop(number).exception()
            if error is None:
                self.ready.add(number)
                self.wished.discard(number)
            elif number in self.wished:
                raise error
            else:
                self.failed.add(number)

    def _note_taken(self, present: set[str]) -> None:
        gone = [number for number in self.ready if self.names[number] not in present]
        if gone:
            self.next = max(gone) + 1
            self.ready.difference_update(gone)
            self.taken += len(gone)
            current = self.names[max(gone)]
            self.events(Progress(files=self.taken, bytes=self.taken * self.segment_size, current=current))

    def _take_wish(self, name: str, present: set[str]) -> None:
        """Answer that somebody is here, by removing it, and bring that segment before others."""
        self._forget(f"{WISHES}/{name}")
        number = self.numbers.get(name)
        if number is None or name in present:
            return
        self.next = number
        self.wished.add(number)
        self.failed.discard(number)
        self.ready.discard(number)

    def _bring(self, number: int) -> None:
        name = self.names[number]
        stored = self.stored.get(name)
        if stored is None:
            raise WalGap(
                f"WAL segment {name} is not in the repository",
                cause="it was there when the recovery was planned, and has been removed since",
                hint="restore again: `backstay pg restore` plans with what is stored",
            )
        data = read_segment(self.repository, self.system, WalFile(name, stored))
        self.segment_size = len(data)
        told(partial(self._put, name, data), f"write WAL segment {name}")

    def _end(self, why: str) -> None:
        """Leave word for the server."""
        told(partial(self._put, ENDED, why.encode()), "tell the server that no more WAL comes")

    def _forget(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)

    def _put(self, name: str, data: bytes) -> None:
        with suppress(FileNotFoundError):  # the server has recovered meanwhile
            self.owned.publish(self.directory / name, data)

"""The requests of `pg archive --serve`: who asks, for which file, and what is answered."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Final

from backstay.core.clock import Clock
from backstay.core.events import EventSink, Progress, Warned
from backstay.core.local_service import peer_user
from backstay.errors import BackstayError, InvalidRequest, StorageUnavailable
from backstay.operations.archiving.ahead import LookAhead
from backstay.operations.archiving.jobs import ArchiveJobs
from backstay.operations.archiving.wal_file import ArchiveResult, Offered, system_of_control
from backstay.operations.wal.storing import as_warning
from backstay.operations.wal.streaming import DRAIN_S
from backstay.sources.postgres.archive_client import ANSWER_BYTES, DURABLE

ASK_S: Final = 5.0  # for a client that has connected to say what it wants
PATIENCE_S: Final = 30.0  # for a file to be stored, before its server is told to ask again
REQUEST_BYTES: Final = 4096


class Answering:
    """Answers each connection on a thread of its own."""

    def __init__(
        self, jobs: ArchiveJobs, ahead: LookAhead, *, users: frozenset[int], clock: Clock, events: EventSink
    ) -> None:
        """`users` may ask, by their numbers."""
        self._jobs, self._ahead, self._users = jobs, ahead, users
        self._clock, self._events = clock, events
        self._changed = threading.Condition()
        self._under_way = 0
        self._failure: BaseException | None = None
        self.files = self.bytes = self.refused = 0

    def begin(self, connection: socket.socket) -> None:
        with self._changed:
            self._under_way += 1
        threading.Thread(target=self._run, args=(connection,), name="answer", daemon=True).start()

    def check(self) -> None:
        """Raise what is no refusal but a mistake of ours: the next process may do better."""
        if self._failure is not None:
            raise self._failure

    def drain(self) -> None:
        """Let those have their answers who have asked; one that hangs in a store ends with the process."""
        until = self._clock.monotonic() + DRAIN_S
        with self._changed:
            while self._under_way and (left := until - self._clock.monotonic()) > 0:
                self._changed.wait(left)

    def _run(self, connection: socket.socket) -> None:
        try:
            with connection:
                answer = self._answer(connection)
                with suppress(OSError):  # who asked is gone, and asks again
                    connection.send(answer)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that accepts, which raises it
            self._failure = error
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def _answer(self, connection: socket.socket) -> bytes:
        try:
            self._require_known(connection)
            offered, directory = _received(connection)
        except BackstayError as error:
            return self._refuse("a request", error)
        name = offered.name
        try:
            return self._acknowledge(name, self._store(offered, directory))
        except BackstayError as error:
            return self._refuse(name, error)

    def _require_known(self, connection: socket.socket) -> None:
        if (user := peer_user(connection)) not in self._users:
            raise InvalidRequest(
                f"user {user} may not archive here",
                cause=f"those who may are {', '.join(map(str, sorted(self._users)))}",
                hint="start `backstay pg archive --serve` with --user",
            )

    def _store(self, offered: Offered, directory: int) -> ArchiveResult:
        name, asked = offered.name, self._jobs.ask(offered)
        self._ahead.follow(directory)
        try:
            return asked.result(PATIENCE_S)
        except TimeoutError as error:
            raise StorageUnavailable(
                f"{name} is not stored yet",
                cause=f"the store has taken more than {PATIENCE_S:g} s, and goes on with it",
                hint="nothing is lost: the server asks again",
            ) from error

    def _acknowledge(self, name: str, result: ArchiveResult) -> bytes:
        with self._changed:
            self.files += 1
            self.bytes += result.bytes
        self._events(Progress(files=self.files, bytes=self.bytes, current=name))
        return DURABLE

    def _refuse(self, what: str, error: BackstayError) -> bytes:
        told = as_warning(error).message
        with self._changed:
            self.refused += 1
        self._events(Warned(message=f"{what} was not archived: {told}"))
        return told.encode(errors="replace")[:ANSWER_BYTES]


def _received(connection: socket.socket) -> tuple[Offered, int]:
    """The file that a client hands over, and the open directory in which it lies. Raises InvalidRequest."""
    connection.settimeout(ASK_S)
    try:
        name, descriptors, flags, _ = socket.recv_fds(connection, REQUEST_BYTES, 3, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise _not_ours(str(error)) from error
    if len(descriptors) not in (2, 3) or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for descriptor in descriptors:
            os.close(descriptor)
        raise _not_ours("it brings another number of files, or a longer name, than any client of ours")
    file, directory, *control = descriptors
    system = None
    for descriptor in control:
        try:
            system = system_of_control(descriptor)
        except OSError:
            system = None  # told if the file needs it
        finally:
            os.close(descriptor)
    return Offered(os.fsdecode(name), file, system), directory


def _not_ours(cause: str) -> InvalidRequest:
    return InvalidRequest(
        "a request cannot be read", cause=cause, hint="use the archive_command that `backstay pg archive --serve` tells"
    )

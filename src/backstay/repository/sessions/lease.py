"""The right to be the only writer, for stores that cannot decide between several.

Whoever wants to write announces itself below `lease/`, and then looks who else did. Of two that announce at the same
time at least one sees the other, because each looks after it wrote; whoever sees another withdraws, and tries again
after a while. A lease counts until its owner gave no sign of life for so long as sessions are given, by the store's
clock, or at once when its process is known to be dead. No step is decided by the order of names or by other clocks.
"""

from __future__ import annotations

from typing import Final

from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.errors import RepositoryBusy
from backstay.repository.format import LEASES
from backstay.repository.keys.keyring import Keyring
from backstay.repository.sessions.session import LEASE, Process, RunningSession, Session, is_dead_here, running_sessions
from backstay.storage.backend import StorageBackend

TRIES: Final = 5
PAUSE_S: Final = 0.5  # times a random number below 2 and the number of the try


class Lease:
    """Held from `take` to `close`."""

    def __init__(
        self,
        backend: StorageBackend,
        keyring: Keyring,
        clock: Clock,
        *,
        process: Process,
        random: Random,
    ) -> None:
        self._backend, self._keyring, self._clock = backend, keyring, clock
        self._process, self._random = process, random
        self._mine: Session | None = None

    def take(self) -> None:
        """Become the only writer. Raises RepositoryBusy while there is another one.

        A crash leaves an announcement, which ends like that of any writer that is gone.
        """
        others = self._try()
        for tried in range(1, TRIES):
            if not others:
                return
            self._clock.sleep(PAUSE_S * tried * self._random(1)[0] / 128)
            others = self._try()
        if others:
            raise RepositoryBusy(
                f"{self._backend.url} is written to by another program", cause="; ".join(map(str, others))
            )

    def _try(self) -> list[RunningSession]:
        """Announce and look; who else is there, in which case the announcement is taken back."""
        mine = self._announced()
        others = self._others(mine)
        if others:
            mine.close()
        else:
            mine.start_heartbeat()
            self._mine = mine
        return others

    def confirm(self) -> None:
        """Before a commit: whether it is still held. Raises RepositoryBusy if somebody took this writer for dead."""
        if self._mine is None or not any(self._backend.list(f"{LEASES}{self._mine.id}.")):
            raise RepositoryBusy(
                f"the right to write to {self._backend.url} was lost",
                cause="this program gave no sign of life for too long, and another one took over",
            )

    def close(self) -> None:
        """Give it up."""
        mine, self._mine = self._mine, None
        if mine is not None:
            mine.close()

    def _announced(self) -> Session:
        mine = Session(
            self._backend, self._keyring, self._clock, process=self._process, random=self._random, place=LEASES
        )
        mine.announce()
        return mine

    def _others(self, mine: Session) -> list[RunningSession]:
        """Who else holds or wants it; what dead writers left is removed."""
        found = {lease.id: lease for lease in running_sessions(self._backend, self._keyring, place=LEASES)}
        own = found.pop(mine.id, None)
        if own is None:
            raise RepositoryBusy(
                f"{self._backend.url} does not list what was just written",
                cause="without that nobody can tell who else writes",
            )
        oldest = own.last_seen_ns - int(LEASE.total_seconds() * 1e9)
        alive: list[RunningSession] = []
        for other in found.values():
            if other.last_seen_ns > oldest and not (other.record and is_dead_here(other.record, self._process)):
                alive.append(other)
                continue
            for name in other.names:
                self._backend.delete(name)
        return alive

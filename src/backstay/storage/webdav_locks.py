"""The sole right to do something on a WebDAV server, by its locks (RFC 4918, section 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from backstay.core.clock import Clock
from backstay.errors import BackstayError, StorageUnavailable
from backstay.storage.http_client import Answer, HttpClient

_QUESTION: Final = (
    b'<?xml version="1.0" encoding="utf-8"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>'
    b"<locktype><write/></locktype></lockinfo>"
)
_GRANTED: Final = frozenset({200, 201})
_LOCKED: Final = 423
_NO_METHOD: Final = frozenset({405, 501})
_TOLD: Final = frozenset({200, 204})
_BUSY: Final = frozenset({408, 425, 429})
_LOCKING: Final = "2"  # of the classes that a server may name (RFC 4918, section 18)
# After so long the server takes a lock back whose writer died, or never got the answer: soon enough for the retries.
_HELD_S: Final = 90
_MARGIN_S: Final = 30  # within which what it was taken for must have been sent, or it is renewed
_WAIT_S: Final = _HELD_S + 10
_SOON_S: Final = 5
_STEP_S: Final = 0.02
_LATER_STEP_S: Final = 0.5  # when whoever holds it is dead, most likely


class WebdavLocks:
    """Locks on names that nothing else uses. A server makes an empty file of such a name, and it stays.

    To remove it would race with who locks it next: a server was seen to forget that one's lock with the file.
    """

    def __init__(self, http: HttpClient, clock: Clock) -> None:
        self._http = http
        self._clock = clock

    def work(self, target: str) -> bool:
        """Whether the server grants a lock, and not the same one twice; some grant whatever is asked for.

        `target` is a name that nobody else knows.
        """
        answer = self._ask(target)
        if answer.status in _NO_METHOD or (answer.status not in _GRANTED and not self._claims_locks(target, answer)):
            return False
        if answer.status == _LOCKED:  # somebody has locked all that lies around it
            raise self._http.failure(f"cannot lock {target}", answer)
        first = self._token(target, answer)
        second = self._lock(target) if first else None
        for token in (first, second):
            if token:
                self._release(target, token)
        with suppress(BackstayError):
            self._http.request("DELETE", target)
        return first is not None and second is None

    @contextmanager
    def held(self, target: str, title: str) -> Iterator[Callable[[], None]]:
        """Wait for the lock, and have it until the end of the block.

        What the block gets is to be called before it acts: it renews a lock that is not new any more, and raises when
        the lock may have run out meanwhile.
        """
        began = asked = self._clock.monotonic()
        while (token := self._lock(target)) is None:
            waited = self._clock.monotonic() - began
            if waited > _WAIT_S:
                raise StorageUnavailable(
                    title,
                    cause="another writer holds the lock of this name, or died while it did",
                    hint=f"try again: the server takes such locks back after {_HELD_S} seconds",
                )
            self._clock.sleep(_STEP_S if waited < _SOON_S else _LATER_STEP_S)
            asked = self._clock.monotonic()

        def check() -> None:
            if self._clock.monotonic() - asked <= _MARGIN_S:
                return
            again = self._clock.monotonic()
            if not self._renewed(target, token) or self._clock.monotonic() - again > _MARGIN_S:
                raise StorageUnavailable(title, cause="the lock of this name may have run out")

        try:
            yield check
        finally:
            self._release(target, token)

    def _lock(self, target: str) -> str | None:
        """The lock's token, or None if somebody else has it now, or the server names none."""
        return self._token(target, self._ask(target))

    def _ask(self, target: str) -> Answer:
        headers = {"Depth": "0", "Timeout": f"Second-{_HELD_S}", "Content-Type": "application/xml"}
        return self._http.request("LOCK", target, headers=headers, body=_QUESTION)

    def _token(self, target: str, answer: Answer) -> str | None:
        if answer.status == _LOCKED:
            return None
        if answer.status not in _GRANTED or answer.headers.get("Content-Type", "").startswith("text/html"):
            raise self._http.failure(f"cannot lock {target}", answer)  # else locks that work would pass for none
        return answer.headers.get("Lock-Token", "").strip() or None

    def _claims_locks(self, target: str, refusal: Answer) -> bool:
        """Whether a server that refused one says that it has locks. Raises for one that failed, now or before."""
        if not _is_refusal(refusal):
            raise self._http.failure(f"cannot lock {target}", refusal)
        answer = self._http.request("OPTIONS", target)
        if answer.status not in _TOLD and not _is_refusal(answer):
            raise self._http.failure(f"cannot tell whether {target} can be locked", answer)
        return _LOCKING in (word.strip() for word in answer.headers.get("DAV", "").split(","))

    def _renewed(self, target: str, token: str) -> bool:
        headers = {"Timeout": f"Second-{_HELD_S}", "If": f"({token})"}
        return self._http.request("LOCK", target, headers=headers).status in _GRANTED

    def _release(self, target: str, token: str) -> None:
        """A lock that stays ends by itself."""
        with suppress(BackstayError):
            self._http.request("UNLOCK", target, headers={"Lock-Token": token})


def _is_refusal(answer: Answer) -> bool:
    """Whether the answer would be the same the next time."""
    return answer.status in _NO_METHOD or (400 <= answer.status < 500 and answer.status not in _BUSY)

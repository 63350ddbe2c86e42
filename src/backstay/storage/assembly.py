"""From an address and what was asked for to one backend: the engine and the wrappers around it.

From the outside in, each knows nothing of the others:

    Quota > Mirrored > one for each copy: ReadAhead > Limits > Retrying > Metered > engine

The quota counts an object once, however many copies get it. Retries are inside of the mirror, so that a copy fails for
good before it is left behind, and inside of the limits, so that waiting for the line is not taken for a failure. The
meters see every single try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from backstay.core.clock import Clock, SystemClock
from backstay.errors import InvalidRequest
from backstay.storage.backend import StorageBackend
from backstay.storage.circuit import Circuit, CircuitPolicy
from backstay.storage.cloud_address import OPTIONS, parse_address
from backstay.storage.limits import LimitPolicy, Limits
from backstay.storage.local import LocalStorage
from backstay.storage.memory import MemoryStorage
from backstay.storage.metered import Metered
from backstay.storage.mirrored import Mirrored
from backstay.storage.quota import Quota
from backstay.storage.read_ahead import ReadAhead
from backstay.storage.registry import open_backend
from backstay.storage.retrying import Retrying, RetryPolicy
from backstay.storage.wrapper import Wrapper

COPY_DEADLINE_S: Final = 60.0  # how long a copy is waited for, at most
# What answers at once or never: a second try on a local disk finds what the first one found.
_AT_HAND: Final = (LocalStorage, MemoryStorage)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """What a user asks for besides the address.

    `mirrors` are addresses of further copies; `quorum` copies must have an object, None means all. `max_size` in
    bytes limits the repository; it is for those who add to it, not for those who free space.
    """

    mirrors: tuple[str, ...] = ()
    quorum: int | None = None
    max_size: int | None = None
    limits: LimitPolicy = field(default_factory=LimitPolicy)
    retry: RetryPolicy = field(default_factory=RetryPolicy)


def assemble(
    url: str,
    settings: StorageSettings | None = None,
    *,
    create: bool = True,
    clock: Clock | None = None,
    warn: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> StorageBackend:
    """The backend of an address with all that was asked for; `create` is as in `open_backend`.

    Raises InvalidRequest.
    """
    settings, clock = settings or StorageSettings(), clock or SystemClock()
    circuits: dict[str, Circuit] = {}  # copies on one server share what is known of it
    places = [_reach(url, settings.limits, settings.retry, circuits, clock, create=create)]
    for mirror in settings.mirrors:
        policy = _for_copies(settings.retry)
        places.append(_reach(mirror, settings.limits, policy, circuits, clock, create=create))
    if len(places) == 1 and settings.quorum is not None:
        raise InvalidRequest("a quorum needs copies", hint="name them with --mirror")
    backend = Mirrored(places, quorum=settings.quorum, warn=warn) if len(places) > 1 else places[0]
    if settings.max_size is None:
        return backend
    return Quota(backend, max_size=settings.max_size, clock=clock, warn=warn)


def _for_copies(policy: RetryPolicy) -> RetryPolicy:
    """A copy can be done without for a while: it is waited for less, and not again soon."""
    circuit = CircuitPolicy(failures=1, open_s=policy.circuit.open_s)
    return replace(policy, deadline_s=min(policy.deadline_s, COPY_DEADLINE_S), circuit=circuit)


def _reach(
    url: str, limits: LimitPolicy, policy: RetryPolicy, circuits: dict[str, Circuit], clock: Clock, *, create: bool
) -> StorageBackend:
    """One place, with the wrappers that belong to it alone."""
    backend = open_backend(url, create=create)
    if not isinstance(backend, _AT_HAND):
        known = circuits.setdefault(_server(url), Circuit(policy.circuit, clock))
        backend = Retrying(
            Metered(backend, clock=clock), policy=policy, clock=clock, circuit=known.under(policy.circuit)
        )
    if limits != LimitPolicy():
        backend = Limits(backend, limits, clock=clock)
    return backend if backend.parallel == 1 else ReadAhead(backend)


def _server(url: str) -> str:
    """The part of an address that says who is talked to; for clouds that is not the name in its first place."""
    parts = urlsplit(url)
    if parts.scheme.lower() in OPTIONS:
        return parse_address(url).server
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


def engines(backend: StorageBackend) -> Iterator[StorageBackend]:
    """The backends below all wrappers and in all copies."""
    for layer in _layers(backend):
        if not isinstance(layer, (Wrapper, Mirrored)):
            yield layer


def meters(backend: StorageBackend) -> dict[str, Metered]:
    """The figures of each place that is measured, by its address."""
    return {layer.url: layer for layer in _layers(backend) if isinstance(layer, Metered)}


def local_places(backend: StorageBackend) -> list[Path]:
    """The directories of this machine in which objects lie."""
    return [Path(engine.url) for engine in engines(backend) if isinstance(engine, LocalStorage)]


def is_same_place(one: StorageBackend, other: StorageBackend) -> bool:
    """Whether two backends keep their objects in one place, also if a symlink or a mount gives it two names."""
    return any(_is_same_engine(here, there) for here in engines(one) for there in engines(other))


def _is_same_engine(one: StorageBackend, other: StorageBackend) -> bool:
    if isinstance(one, MemoryStorage):  # most have no name
        return one is other
    if not isinstance(one, LocalStorage) or not isinstance(other, LocalStorage):
        return one.url == other.url
    try:
        return Path(one.url).samefile(other.url)
    except OSError:  # one is not there, or cannot be looked at: whoever uses it next is told why
        return False


def _layers(backend: StorageBackend) -> Iterator[StorageBackend]:
    yield backend
    if isinstance(backend, Wrapper):
        yield from _layers(backend.inner)
    elif isinstance(backend, Mirrored):
        for copy in backend.copies():
            yield from _layers(copy)

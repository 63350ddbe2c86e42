"""A backup as programs see it, and which backups a text means."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from typing import Final, Self

from backstay.core.clock import datetime_from_ns
from backstay.core.ids import is_ulid
from backstay.core.names import printable
from backstay.core.times import require_zone
from backstay.errors import InvalidRequest, NotFound
from backstay.repository.snapshots.selectors import LATEST, choose, is_to_come
from backstay.repository.snapshots.store import Manifest, SnapshotKind

_DATED: Final = re.compile(r"(?P<name>.+)-(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One snapshot of one source; sizes in bytes.

    `bytes` is what was backed up, `stored_bytes` what the snapshot added to the repository. `source` says what was
    backed up, as `filesystem:…` or `postgresql:…`.
    """

    id: str
    name: str | None
    kind: SnapshotKind
    source: str
    host: str
    time: datetime
    recorded_at: datetime
    description: str
    tags: tuple[str, ...]
    paths: tuple[str, ...]
    parent: str | None
    files: int
    bytes: int
    stored_bytes: int
    duration_s: float
    held: bool

    @classmethod
    def of(cls, manifest: Manifest, *, held: bool = False) -> Self:
        """The backup that a snapshot is."""
        stats = manifest.stats
        return cls(
            id=manifest.id,
            name=manifest.name,
            kind=manifest.kind,
            source=manifest.source,
            host=manifest.host,
            time=manifest.time,
            recorded_at=datetime_from_ns(manifest.recorded_ns),
            description=manifest.description,
            tags=manifest.tags,
            paths=tuple(printable(path) for path in manifest.paths),
            parent=manifest.parent,
            files=stats.files,
            bytes=stats.bytes,
            stored_bytes=stats.bytes_added,
            duration_s=stats.duration_ns / 1e9,
            held=held,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What names mean: `policies` has the snapshots' names of each policy; days are those of `zone`."""

    policies: dict[str, frozenset[str]]
    zone: tzinfo = UTC

    def meant(
        self,
        manifests: Iterable[Manifest],
        text: str,
        *,
        now: datetime,
        at: datetime | None = None,
        path: bytes | None = None,
    ) -> tuple[Manifest, ...]:
        """The snapshots that a text means, of each source the newest that is not later than `at`.

        An id, its beginning, the name of a snapshot and `latest` mean one, as on the command line. The name of a policy
        means one of each of its sources, and so does `NAME-2025-06-24`: those of that day.

        Raises NotFound, InvalidRequest, NaiveTimestamp.
        """
        known = list(manifests)
        require_zone(at)
        name = text.removeprefix(f"{LATEST}:")
        is_plain = text == LATEST or is_ulid(text.lower())
        if is_plain or (any(one.name == name for one in known) and not self._has_several(name)):
            return (choose(known, text, now=now, at=at, path=path),)
        for base, day in _readings(name):
            if base and (names := self._names(base, known)):
                of_name = [one for one in known if one.name in names]
                return self._newest(of_name, text, day, now=now, at=at)
        return (choose(known, text, now=now, at=at, path=path),)

    def _has_several(self, name: str) -> bool:
        return len(self.policies.get(name, ())) > 1

    def _names(self, base: str, known: Sequence[Manifest]) -> Collection[str]:
        """The snapshots' names that belong to a name."""
        if base in self.policies:
            return self.policies[base]
        names = {one.name for one in known if one.name is not None}
        if base in names:
            return (base,)
        return {name for name in names if name.startswith(f"{base}-")}

    def _newest(
        self, candidates: Sequence[Manifest], text: str, day: date | None, *, now: datetime, at: datetime | None
    ) -> tuple[Manifest, ...]:
        """Of each source the newest of that day, and not later than `at`."""
        last: dict[tuple[str, str | None], Manifest] = {}
        for one in sorted(candidates, key=lambda found: (not is_to_come(found, now), found.time_ns, found.id)):
            on_day = day is None or one.time.astimezone(self.zone).date() == day
            if on_day and (at is None or one.time <= at):
                last[(one.source, one.name)] = one
        if not last:
            when = f"of {day}" if day is not None else "that old"
            times = sorted(one.time.astimezone(self.zone) for one in candidates)
            cause = f"the oldest is of {times[0].isoformat()}, the newest of {times[-1].isoformat()}" if times else ""
            raise NotFound(f"there is no backup {text!r} {when}", cause=cause or "none was made under this name")
        return tuple(sorted(last.values(), key=lambda found: (found.time_ns, found.id)))


def the_only(found: Sequence[Manifest], text: str) -> Manifest:
    """The one that is meant. Raises InvalidRequest when several are."""
    if len(found) > 1:
        raise InvalidRequest(
            f"{text!r} means {len(found)} backups, one of each source",
            cause=", ".join(f"{one.id} of {one.name}" for one in found),
            hint="name the one that is wanted by its id, or by the name of its source",
        )
    return found[0]


def _readings(name: str) -> Iterable[tuple[str, date | None]]:
    """What a name may be made of: all of it a name, or a name and a day."""
    yield name, None
    if (dated := _DATED.fullmatch(name)) is not None:
        try:
            yield dated["name"], date.fromisoformat(dated["date"])
        except ValueError:  # no such day
            return

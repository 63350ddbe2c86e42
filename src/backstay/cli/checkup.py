"""The checks of `doctor`, one after the other; each goes on whatever the others found."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from backstay.cli.catalogs import CatalogPlace, opened_catalog
from backstay.cli.context import Context
from backstay.core.environment import cache_directory
from backstay.core.quantities import format_duration, format_size, plural
from backstay.errors import BackstayError, CorruptedBackup, InsufficientSpace, InvalidRequest, NoRepository

if TYPE_CHECKING:
    from backstay.catalog.database import Catalog
    from backstay.repository.repository import Repository

State: TypeAlias = Literal["good", "note", "bad"]

_LITTLE: Final = 1 << 30  # bytes of room that are too few for most backups
_FEW_PARTS: Final = 20  # or less than a twentieth of the disk
_AHEAD: Final = timedelta(hours=1)  # by which clocks may differ
_FIRST: Final = datetime(2025, 1, 1, tzinfo=UTC)  # before the first version of this program
_PROBE: Final = bytes(64 << 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one look found; `status` is the exit status if it is bad."""

    name: str
    state: State
    message: str
    hint: str = ""
    status: int = 1


def checkup(context: Context, catalog: Callable[[], CatalogPlace]) -> Iterator[Check]:
    """All checks in order."""
    yield _policy_file(context)
    yield from _repository(context)
    yield _cache(context)
    yield from _catalog(catalog)
    yield _clock(context)
    yield _zones(context)
    yield from _room(context, catalog)


def _policy_file(context: Context) -> Check:
    name = "policy file"
    file = context.policy_file()
    if file is None:
        return Check(name=name, state="note", message="none is named", hint="give --config FILE or BACKSTAY_CONFIG")
    try:
        names = context.policies().content.names
    except BackstayError as error:
        return _bad(name, error, hint=f"`backstay policy check {file}` tells all of it")
    return Check(name=name, state="good", message=f"{file}: {plural(len(names), 'policy', 'policies')}")


def _repository(context: Context) -> Iterator[Check]:
    name = "repository"
    try:
        location = context.location()
        with context.open(index=False) as repository:
            yield _snapshots(repository, location.address)
            yield _keys(repository)
            yield _clock_of_snapshots(repository, context.clock.now())
    except NoRepository as error:
        state: State = "note" if context.policy_file() is None else "bad"
        yield Check(name=name, state=state, message=str(error), hint=error.hint, status=error.exit_status)
    except BackstayError as error:
        yield _bad(name, error)


def _snapshots(repository: Repository, address: str) -> Check:
    damaged: list[str] = []
    live = repository.snapshots.live(on_damage=lambda name, _: damaged.append(name))
    message = f"{address}: {plural(len(live), 'snapshot')}"
    if damaged:
        return Check(
            name="repository",
            state="bad",
            message=f"{message}, and {plural(len(damaged), 'record')} that cannot be read, such as {damaged[0]}",
            hint="`backstay verify` tells more, and the commands of `backstay repair` mend",
            status=CorruptedBackup.exit_status,
        )
    return Check(name="repository", state="good", message=message)


def _keys(repository: Repository) -> Check:
    slots = [slot for slot in repository.slots.list() if slot.opens and not slot.removed]
    message = f"{plural(len(slots), 'way')} to open it"
    if any(slot.kind == "recovery" for slot in slots):
        return Check(name="keys", state="good", message=f"{message}, one of them a recovery key")
    hint = "`backstay key recovery` prints a key to put away: without it a lost password is the loss of all backups"
    return Check(name="keys", state="note", message=f"{message}, and no recovery key", hint=hint)


def _cache(context: Context) -> Check:
    try:
        directory = cache_directory(context.environ)
    except InvalidRequest as error:
        return _bad("cache", error)
    above = next((place for place in (directory, *directory.parents) if place.is_dir()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=above) as probe:
            probe.write(_PROBE)
    except OSError as error:
        hint = "make it writable, or name another by BACKSTAY_CACHE_DIR: without a cache backups are slow"
        return Check(name="cache", state="bad", message=f"{above}: {error.strerror}", hint=hint, status=15)
    return Check(name="cache", state="good", message=f"{directory} can be written")


def _catalog(catalog: Callable[[], CatalogPlace]) -> Iterator[Check]:
    name = "catalog"
    try:
        place = catalog()
        if not place.is_made:
            yield Check(name=name, state="note", message="there is none: `backstay serve` makes it")
            return
        with opened_catalog(place) as opened:
            yield Check(name=name, state="good", message=f"{place.file or 'PostgreSQL'}: its tables are up to date")
            yield _audit(place, opened)
    except ModuleNotFoundError:
        yield Check(
            name=name, state="note", message="the service is not installed", hint="`pip install 'backstay[server]'`"
        )
    except BackstayError as error:
        again = "`backstay doctor --rebuild-catalog` makes its list of backups anew"
        yield _bad(name, error, hint=error.hint if "--rebuild-catalog" in error.hint else f"{error.hint}; {again}")


def _audit(place: CatalogPlace, catalog: Catalog) -> Check:
    from backstay.catalog.audit_verifying import verify
    from backstay.catalog.checkpoints import CheckpointFile

    with catalog.reading() as session:
        verdict = verify(session, kept=CheckpointFile(place.checkpoints).read())
    if verdict.ok:
        return Check(name="audit log", state="good", message=f"whole: {plural(verdict.entries, 'entry', 'entries')}")
    return Check(
        name="audit log",
        state="bad",
        message=f"broken at entry {verdict.broken}: {verdict.problem}",
        hint="`backstay audit verify` tells more; somebody wrote into the database",
        status=CorruptedBackup.exit_status,
    )


def _clock(context: Context) -> Check:
    now = context.clock.now()
    if now < _FIRST:
        hint = "set it, and let NTP keep it"
        return Check(name="clock", state="bad", message=f"it is {now:%Y-%m-%d %H:%M} UTC, it says", hint=hint)
    return Check(name="clock", state="good", message=f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _clock_of_snapshots(repository: Repository, now: datetime) -> Check:
    """Whether this clock goes with those of the machines that made the newest snapshots."""
    newest = max((one.recorded_ns for one in repository.snapshots.live(lambda _, __: None)), default=0)
    ahead = datetime.fromtimestamp(newest / 1e9, UTC) - now
    if ahead > _AHEAD:
        return Check(
            name="clocks of others",
            state="bad",
            message=f"the newest snapshot was made {format_duration(ahead.total_seconds())} from now: "
            "this clock is behind, or that one was ahead",
            hint="set the clock that is wrong, and let NTP keep it: retention and schedules go by it",
        )
    return Check(name="clocks of others", state="good", message="no snapshot is from the time to come")


def _zones(context: Context) -> Check:
    """Whether the rules of time zones are installed; without a file that names some, of one that has any."""
    from backstay.control.policies.effective import effective

    names = {"Europe/Berlin"}
    if context.policy_file() is not None:
        try:
            content = context.policies().content
        except BackstayError:
            content = None
        if content is not None:
            holds = [effective(policy, content.backup_manager) for policy in content.policies.values()]
            names |= {one.schedule.timezone for one in holds if one.schedule.timezone}
    missing = []
    for name in sorted(names):
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            missing.append(name)
    if missing:
        hint = "install them: the package tzdata of the system, or `pip install tzdata`"
        return Check(name="time zones", state="bad", message=f"no rules for {', '.join(missing)}", hint=hint)
    return Check(name="time zones", state="good", message="their rules are installed")


def _room(context: Context, catalog: Callable[[], CatalogPlace]) -> Iterator[Check]:
    places: dict[str, Path] = {}
    # What fails here is told above; the other places are looked at all the same.
    with suppress(InvalidRequest):
        places["cache"] = cache_directory(context.environ)
    with suppress(BackstayError, ModuleNotFoundError):
        places["data directory"] = catalog().data_dir
    with suppress(BackstayError):
        address = context.location().address.removeprefix("file:")
        if address.startswith("/"):
            places["repository"] = Path(address)
    for what, place in places.items():
        there = next((one for one in (place, *place.parents) if one.exists()), None)
        if there is not None:
            yield _room_of(what, there)


def _room_of(what: str, place: Path) -> Check:
    name = f"room of the {what}"
    found = shutil.disk_usage(place)
    message = f"{format_size(found.free)} of {format_size(found.total)} are free"
    if found.free >= _LITTLE and found.free * _FEW_PARTS >= found.total:
        return Check(name=name, state="good", message=message)
    hint = f"make room on the disk of {place}; `backstay prune` and `backstay gc` free that of a repository"
    state: State = "bad" if found.free < _LITTLE // 10 else "note"
    return Check(name=name, state=state, message=message, hint=hint, status=InsufficientSpace.exit_status)


def _bad(name: str, error: BackstayError, hint: str = "") -> Check:
    return Check(name=name, state="bad", message=str(error), hint=hint or error.hint, status=error.exit_status)

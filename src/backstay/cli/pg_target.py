"""How the target of a recovery is given: the options that `pg restore` and `pg verify` share, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from backstay.cli.context import Context
from backstay.cli.moments import zoned_moment
from backstay.cli.options import argument, flag, option
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.clusters.plan import RecoveryTarget

Snapshot: TypeAlias = Annotated[str, argument("ID", "The base backup; the best one for the target if not given.")]
At: TypeAlias = Annotated[str | None, option("TIME", "Recover to this time; it must have a zone.")]
Lsn: TypeAlias = Annotated[str | None, option("LSN", "Recover to this position, such as 16/B374D848.")]
Xid: TypeAlias = Annotated[int | None, option("XID", "Recover to this transaction.", min=3)]
RestorePoint: TypeAlias = Annotated[
    str | None, option("POINT", "Recover to what pg_create_restore_point gave this name.")
]
Immediate: TypeAlias = Annotated[bool, flag("Recover only until the base backup is consistent.", "--immediate")]
Timeline: TypeAlias = Annotated[int | None, option("N", "Along this timeline; the newest if not given.", min=1)]


def target_of(
    context: Context,
    *,
    at: str | None,
    lsn: str | None,
    xid: int | None,
    point: str | None,
    immediate: bool,
    timeline: int | None,
) -> RecoveryTarget:
    """The one target that was given. Raises InvalidRequest for several, and for a time without a zone."""
    from backstay.operations.clusters.plan import RecoveryTarget
    from backstay.sources.postgres.lsn import parse_lsn

    given = [value for value in (at, lsn, xid, point, immediate or None) if value is not None]
    if len(given) > 1:
        raise InvalidRequest(
            "a recovery has one target",
            cause="more than one of --at, --lsn, --xid, --restore-point and --immediate is given",
            hint="give the one that is meant",
        )
    if at is not None:
        return RecoveryTarget(kind="time", time=zoned_moment(context, at), timeline=timeline)
    if lsn is not None:
        return RecoveryTarget(kind="lsn", lsn=parse_lsn(lsn), timeline=timeline)
    if xid is not None:
        return RecoveryTarget(kind="xid", xid=xid, timeline=timeline)
    if point is not None:
        return RecoveryTarget(kind="name", name=point, timeline=timeline)
    return RecoveryTarget(kind="immediate" if immediate else "latest", timeline=timeline)

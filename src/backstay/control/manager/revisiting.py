"""Whether what a restore wrote is still what the snapshot holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backstay.control.manager.into_database import present
from backstay.control.manager.requests import RestoreRequest, Surroundings
from backstay.control.manager.targets import DatabaseTarget, RestoreTarget
from backstay.errors import InvalidRequest, RestoreFailed
from backstay.operations.restore.comparing import compare_with_target
from backstay.operations.restore.tally import FailedItem


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreCheck:
    """What was found of a restore: how many items are as they were restored, and those that are not.

    Of a database the objects of the dump are looked for, and not their rows, which live on.
    """

    restore_id: str
    equal: int
    differing: tuple[FailedItem, ...]

    @property
    def ok(self) -> bool:
        return not self.differing

    def raise_failure(self) -> None:
        """Raises RestoreFailed when something differs."""
        if self.differing:
            raise RestoreFailed(
                f"{len(self.differing)} items are not what was restored",
                cause=", ".join(item.path or item.message for item in self.differing[:5]),
                hint="restore them again with conflict='overwrite' if that is not on purpose",
            )


def revisit(around: Surroundings, ident: str, document: Mapping[str, Any], given: RestoreTarget | None) -> RestoreCheck:
    """Compare each part of a restore that was recorded. Raises NotFound, InvalidRequest."""
    equal, differing = 0, list[FailedItem]()
    request = RestoreRequest(
        include=document.get("include", ()), exclude=document.get("exclude", ()), mode=document.get("mode", "beside")
    )
    for part in document["parts"]:
        found = _database(around, part, given) if part["kind"] == "database" else _files(around, part, request)
        equal += found[0]
        differing += found[1]
    return RestoreCheck(restore_id=ident, equal=equal, differing=tuple(differing))


def _files(around: Surroundings, part: Mapping[str, Any], request: RestoreRequest) -> tuple[int, Sequence[FailedItem]]:
    if part["kind"] == "cluster":
        raise InvalidRequest(
            "the files of a cluster change as soon as its server is started",
            cause=f"{part['target']} is a data directory",
            hint="rehearse its recovery by `backstay pg verify`",
        )
    manifest = around.repository.snapshots.get(part["backup_id"])
    found = compare_with_target(
        around.repository, manifest, Path(part["target"]), request.options(part["source"]), events=around.events
    )
    return found.equal, found.differing


def _database(
    around: Surroundings, part: Mapping[str, Any], given: RestoreTarget | None
) -> tuple[int, Sequence[FailedItem]]:
    manifest = around.repository.snapshots.get(part["backup_id"])
    own = DatabaseTarget(connection=part["target"], schemas=part["schemas"], tables=part["tables"])
    target = given if isinstance(given, DatabaseTarget) else own
    there, wanted = present(around, manifest, target), part["findable"]
    if there >= wanted:
        return there, ()
    message = f"{wanted - there} of {wanted} objects of the dump are not there"
    return there, [FailedItem(part["target"], RestoreFailed.code, message)]

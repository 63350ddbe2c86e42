"""`restore --in-place`, and what finishes or undoes one: `--resume` and `--rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backstay.cli.context import Context
from backstay.core.names import printable
from backstay.core.quantities import format_count, format_size, plural
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backstay.operations.restore.in_place import InPlaceResult
    from backstay.operations.restore.in_place_recovery import Recovery
    from backstay.operations.restore.run import RestoreOptions
    from backstay.repository.repository import Repository
    from backstay.repository.snapshots.store import Manifest
    from backstay.sources.source import Problem

SHOWN = 20
_TOLD = {
    "finished": "an earlier restore, which was cut short, was brought to its end first",
    "undone": "an earlier restore, which was being undone, was undone first",
    "cleared": "what an earlier restore had staged before it was cut short was removed first",
}


def refuse_unfit(*, in_place: bool, direct: bool, keep_old: bool) -> None:
    """Raises InvalidRequest for options that do not go together."""
    for name, is_given in (("--direct", direct), ("--keep-old", keep_old)):
        if is_given and not in_place:
            raise InvalidRequest(
                f"{name} goes with --in-place",
                cause="it says how items in the original places are replaced",
                hint="add --in-place, or leave it out",
            )
    if direct and keep_old:
        raise InvalidRequest(
            "--direct and --keep-old exclude each other",
            cause="with --direct old items are overwritten one by one",
            hint="give one of them",
        )


def finish(context: Context, resume: Path | None, rollback: Path | None, *, others: bool) -> int:
    """`--resume DIR` or `--rollback DIR`; `others` says whether a snapshot or a target is named besides."""
    from backstay.operations.restore.in_place_recovery import resume_in_place, roll_back_in_place

    if others or (resume is not None and rollback is not None):
        raise InvalidRequest(
            "--resume and --rollback stand alone",
            cause="the directory says which restore it is about",
            hint="write `backstay restore --rollback DIR`, without a snapshot",
        )
    done = resume_in_place(resume) if resume is not None else roll_back_in_place(rollback or Path())
    context.result(_recovery(done), lambda: _show_recovery(context, done))
    return 0


def restore(context: Context, repository: Repository, manifest: Manifest, options: RestoreOptions) -> int:
    """The exit status."""
    from backstay.operations.restore.in_place import restore_in_place

    with context.committing("switch") as events:
        result = restore_in_place(repository, manifest, options, events=events)
    if result.error is not None:
        _warn_of(context, result.problems)
        raise result.error
    context.result(_document(result), lambda: _show(context, result))
    return 0


def _document(result: InPlaceResult) -> dict[str, object]:
    return {
        "snapshot": result.snapshot,
        "target": result.target,
        "in_place": True,
        "files": result.files,
        "bytes": result.bytes,
        "verified": result.verified,
        "unchanged": result.unchanged,
        "skipped": result.skipped,
        "replaced": result.replaced,
        "added": result.added,
        "removed": result.removed,
        "rolled_back": result.rolled_back,
        "kept": list(result.kept),
        "recovered": list(result.recovered),
        "errors": [],
        "problems": _problems(result.problems),
    }


def _problems(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"path": printable(problem.path), "message": problem.message} for problem in problems]


def _show(context: Context, result: InPlaceResult) -> None:
    for what in result.recovered:
        context.say(_TOLD.get(what, what))
    context.say(
        f"restored {plural(result.files, 'file')} with {format_size(result.bytes)} "
        f"from snapshot {result.snapshot} to where they were"
    )
    counts = {
        "read back and equal": result.verified,
        "already there": result.unchanged,
        "left as they were": result.skipped,
        "replaced": result.replaced,
        "added": result.added,
        "removed": result.removed,
    }
    if told := [f"{format_count(count)} {what}" for what, count in counts.items() if count]:
        context.say(", ".join(told))
    for place in result.kept:
        context.say(f"the old state is in {place}: `backstay restore --rollback {place}` brings it back")
    _warn_of(context, result.problems)


def _recovery(done: Recovery) -> dict[str, object]:
    return {
        "snapshot": done.snapshot or None,
        "did": done.did,
        "rolled_back": done.rolled_back,
        "problems": _problems(done.problems),
    }


def _show_recovery(context: Context, done: Recovery) -> None:
    of, but = f" of snapshot {done.snapshot}", ", but for what is warned of" if done.problems else ""
    told = {
        "finished": f"the restore{of} was brought to its end",
        "undone": f"everything is as it was before the restore{of}{but}",
        "cleared": f"the restore{of} had not begun to change anything; what it had staged was removed",
        "kept": f"the restore{of} had come to its end; the old state is still kept there",
    }
    context.say(told[done.did] if done.snapshot else "nothing but an empty directory was left, which was removed")
    _warn_of(context, done.problems)


def _warn_of(context: Context, problems: Sequence[Problem]) -> None:
    for problem in problems[:SHOWN]:
        context.warn(f"{printable(problem.path)}: {problem.message}")
    if len(problems) > SHOWN:
        context.warn(f"and {plural(len(problems) - SHOWN, 'more', 'more')}")

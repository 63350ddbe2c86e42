"""`list`, `info`, `ls`, `find`, `diff` and `stats`: look without restoring."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli import choosing, jsonout
from backstay.cli.context import Context, context_of
from backstay.cli.options import SNAPSHOT_HELP, argument, flag, option
from backstay.cli.render import local_time, mode_text, out, print_heading, print_pairs, print_table
from backstay.core.clock import datetime_from_ns
from backstay.core.names import printable
from backstay.core.quantities import format_age, format_count, format_duration, format_size, plural
from backstay.errors import CorruptedBackup, InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.snapshots.look import Difference, Found, RepositoryStats
    from backstay.repository.nodes import Node
    from backstay.repository.repository import Repository
    from backstay.repository.snapshots.store import Manifest
    from backstay.sources.filters import Selection

SnapshotId = Annotated[str, argument("ID", SNAPSHOT_HELP)]
_MARKS = {"added": "+", "removed": "-", "changed": "M", "metadata": "U", "type": "T"}


def list_snapshots(
    ctx: typer.Context,
    name: Annotated[str | None, option("NAME", "Only snapshots of this name.")] = None,
    host: Annotated[str | None, option("HOST", "Only snapshots of this host.")] = None,
    tag: Annotated[list[str] | None, option("TAG", "Only snapshots with this tag; repeatable.")] = None,
) -> int:
    """List the snapshots, oldest first."""
    context = context_of(ctx)
    with context.open(index=False) as repository:
        known, damaged = choosing.readable(context, repository)
    wanted = [
        manifest
        for manifest in known
        if (name is None or manifest.name == name)
        and (host is None or manifest.host == host)
        and set(tag or ()) <= set(manifest.tags)
    ]
    choosing.warn_of_future(context, wanted)
    context.result([summary(manifest) for manifest in wanted], lambda: _show_list(context, known, wanted))
    return CorruptedBackup.exit_status if damaged else 0


def summary(manifest: Manifest) -> dict[str, object]:
    """What `list --json` tells about a snapshot."""
    return {
        "id": manifest.id,
        "name": manifest.name,
        "kind": manifest.kind,
        "time": manifest.time,
        "host": manifest.host,
        "sources": list(manifest.paths),
        "tags": list(manifest.tags),
        "description": manifest.description,
        "files": manifest.stats.files,
        "bytes": manifest.stats.bytes,
        "bytes_added": manifest.stats.bytes_added,
        "errors": manifest.stats.errors,
        "parent": manifest.parent,
    }


def _show_list(context: Context, known: Sequence[Manifest], wanted: Sequence[Manifest]) -> None:
    from backstay.repository.snapshots.selectors import shortest_prefixes

    if not wanted:
        context.say("there is no snapshot yet: make one with `backstay backup PATH`" if not known else "none matches")
        return
    prefixes = shortest_prefixes(manifest.id for manifest in known)
    groups: dict[tuple[str, str], list[Manifest]] = {}
    for manifest in wanted:
        groups.setdefault((manifest.host, manifest.source), []).append(manifest)
    for number, group in enumerate(groups.values()):
        if number:
            out()
        print_heading(source_title(group[-1]), context.environ)
        print_table(
            ("ID", "Time", "Age", "Kind", ">Files", ">Size", ">Added", "Tags"),
            [_list_row(context, manifest, prefixes[manifest.id]) for manifest in group],
            context.environ,
            indent=2,
        )


def source_title(manifest: Manifest) -> str:
    """What a snapshot is of: name, host and paths."""
    paths = ", ".join(map(printable, manifest.paths))
    return f"{manifest.name}: {paths} on {manifest.host}" if manifest.name else f"{paths} on {manifest.host}"


def _list_row(context: Context, manifest: Manifest, prefix: str) -> tuple[str, ...]:
    stats = manifest.stats
    remarks = [*manifest.tags, *([f"“{manifest.description}”"] if manifest.description else [])]
    if stats.errors:
        remarks.append(f"({plural(stats.errors, 'item')} unreadable)")
    return (
        prefix,
        local_time(manifest.time)[:-3],
        format_age(manifest.time, now=context.clock.now()),
        manifest.kind,
        format_count(stats.files),
        format_size(stats.bytes),
        format_size(stats.bytes_added),
        ", ".join(remarks),
    )


def info(ctx: typer.Context, snapshot: SnapshotId) -> int:
    """Tell all about one snapshot."""
    context = context_of(ctx)
    with context.open(index=False) as repository:
        manifest = choosing.one(context, repository, snapshot)
        digest = repository.snapshots.digest(manifest.id).hex()
    context.result(
        _info_document(manifest, digest), lambda: print_pairs(_info_pairs(manifest, digest), context.environ)
    )
    return 0


def _info_document(manifest: Manifest, digest: str) -> dict[str, object]:
    stats = manifest.stats
    return summary(manifest) | {
        "dirs": stats.dirs,
        "files_new": stats.files_new,
        "files_changed": stats.files_changed,
        "files_unchanged": stats.files_unchanged,
        "bytes_read": stats.bytes_read,
        "duration_s": round(stats.duration_ns / 1e9, 3),
        "recorded_at": datetime_from_ns(manifest.recorded_ns),
        "previous": manifest.previous,
        "packs": len(manifest.packs),
        "program": manifest.program,
        "consistency": manifest.consistency,
        "sha256": digest,
    }


def _info_pairs(manifest: Manifest, digest: str) -> list[tuple[str, str]]:
    stats = manifest.stats
    new, changed, unchanged = map(format_count, (stats.files_new, stats.files_changed, stats.files_unchanged))
    read, added = format_size(stats.bytes_read), format_size(stats.bytes_added)
    dirs = plural(stats.dirs, "directory", "directories")
    return [
        ("Snapshot", manifest.id),
        ("Name", manifest.name or ""),
        ("Time", local_time(manifest.time)),
        ("Host", manifest.host),
        ("Paths", ", ".join(map(printable, manifest.paths))),
        ("Kind", manifest.kind),
        ("Parent", manifest.parent or ""),
        ("Tags", ", ".join(manifest.tags)),
        ("Description", manifest.description),
        ("Holds", f"{plural(stats.files, 'file')}, {dirs}, {format_size(stats.bytes)}"),
        ("Changes", f"{new} new, {changed} changed, {unchanged} unchanged"),
        ("Work", f"{read} read, {added} added in {format_duration(stats.duration_ns / 1e9)}"),
        ("Unreadable", plural(stats.errors, "item") if stats.errors else ""),
        ("Needs", plural(len(manifest.packs), "pack")),
        ("Made by", manifest.program),
        ("Shows", ", ".join(f"{key} {value}" for key, value in manifest.consistency.items())),
        ("SHA-256", digest),
    ]  # fmt: skip


def ls(
    ctx: typer.Context,
    snapshot: Annotated[str, argument("ID[:PATH]", SNAPSHOT_HELP)],
    path: Annotated[str | None, argument("PATH", "The directory or file; else what was backed up.")] = None,
    recursive: Annotated[bool, flag("Everything below as well.", "--recursive", "-R")] = False,
) -> int:
    """List what a snapshot holds."""
    from backstay.operations.snapshots.look import list_entries
    from backstay.repository.snapshots.selectors import split_target

    context = context_of(ctx)
    ident, inside = split_target(snapshot)
    wanted = choosing.only_path(inside, path)
    with context.open() as repository:
        manifest = choosing.one(context, repository, ident, path=wanted)
        damage = _Damage(context)
        found = (
            entry
            for place in _places(manifest.paths if wanted is None else [wanted], recursive=recursive)
            for entry in list_entries(repository, manifest, place, recursive=recursive, on_damage=damage.of(manifest))
        )
        if context.json:
            entries = [_entry(item) for item in found]
            jsonout.write({"snapshot": manifest.id, "entries": entries}, sys.stdout)
        else:
            _print_entries(found)
    return damage.status


@dataclass(slots=True)
class _Damage:
    """Tells of directories that cannot be looked into, and remembers that there were some."""

    context: Context
    status: int = 0

    def of(self, manifest: Manifest) -> Callable[[bytes, CorruptedBackup], None]:
        def tell(path: bytes, error: CorruptedBackup) -> None:
            self.status = CorruptedBackup.exit_status
            self.context.warn(f"{printable(path)} of snapshot {manifest.id}: {error}; {error.hint}")

        return tell


def _places(paths: Sequence[bytes], *, recursive: bool) -> list[bytes]:
    """Those whose entries are listed: one that lies below another comes with it."""
    named = frozenset(paths)
    return [path for path in paths if not (recursive and any(above in named for above in _above(path)))]


def _above(path: bytes) -> Iterator[bytes]:
    while path != b"/":
        path = path.rpartition(b"/")[0] or b"/"
        yield path


def _entry(found: Found) -> dict[str, object]:
    node = found.node
    kind = "dir" if node.is_dir else "file" if node.is_file else "symlink" if node.is_symlink else "special"
    document: dict[str, object] = {
        **jsonout.path_fields(found.path),
        "type": kind,
        "mode": mode_text(node.mode),
        "size": node.size,
        "mtime": datetime_from_ns(node.mtime_ns),
        "uid": node.uid,
        "gid": node.gid,
        "user": node.user,
        "group": node.group,
    }
    if node.sha256 is not None and node.extents is None:  # with holes it is no digest of the file
        document["sha256"] = node.sha256.hex()
    if node.target is not None:
        document["target"] = node.target
    return document


def _print_entries(found: Iterable[Found]) -> None:
    for item in found:
        sys.stdout.write(_long_line(item.node, printable(item.path)) + "\n")


def _long_line(node: Node, path: str) -> str:
    owner = f"{node.user or node.uid} {node.group or node.gid}"
    size = f"{os.major(node.device)}, {os.minor(node.device)}" if node.device is not None else str(node.size)
    arrow = f" -> {printable(node.target)}" if node.target is not None else ""
    slash = "/" if node.is_dir and path != "/" else ""
    modified = local_time(datetime_from_ns(node.mtime_ns))[:-3]
    return f"{mode_text(node.mode)} {owner:<17} {size:>12} {modified} {path}{slash}{arrow}"


@dataclass(slots=True)
class _Version:
    """One state of a path, and the snapshots that hold it."""

    found: Found
    newest: Manifest
    oldest: Manifest
    snapshots: int = 1


def find(
    ctx: typer.Context,
    pattern: Annotated[str, argument("PATTERN", "A name or glob, such as '*.odt' or 'Documents/**/tax*'.")],
    snapshot: Annotated[list[str] | None, option("ID", "Search only this snapshot; repeatable.")] = None,
) -> int:
    """Find files in all snapshots; each version is told once."""
    from backstay.sources.filters import Selection

    context = context_of(ctx)
    if pattern.startswith("!"):
        raise InvalidRequest(
            f"pattern {printable(os.fsencode(pattern))} can match nothing",
            cause="a `!` takes back what a pattern before it takes, and there is none",
            hint=f"a name that begins with it is looked for with '\\{printable(os.fsencode(pattern))}'",
        )
    matches = Selection([os.fsencode(pattern)])
    with context.open() as repository:
        known, damaged = choosing.readable(context, repository)
        wanted = [choosing.one(context, repository, text) for text in snapshot] if snapshot else known
        chosen = list({manifest.id: manifest for manifest in wanted}.values())
        damage = _Damage(context)
        versions = _versions(repository, chosen, matches, damage)
    context.result(
        [_version_document(version) for version in versions], lambda: _show_versions(context, known, versions)
    )
    return CorruptedBackup.exit_status if damaged else damage.status


def _versions(
    repository: Repository, manifests: Sequence[Manifest], matches: Selection, damage: _Damage
) -> list[_Version]:
    """Every version of every match, by path, newest first."""
    from backstay.operations.snapshots import look

    versions: dict[tuple[object, ...], _Version] = {}
    known: dict[object, list[Found]] = {}  # equal roots hold equal files
    for manifest in sorted(manifests, key=lambda found: (found.time_ns, found.id), reverse=True):
        if manifest.root not in known:
            known[manifest.root] = list(look.find(repository, manifest, matches, damage.of(manifest)))
        for found in known[manifest.root]:
            node = found.node
            key = (found.path, node.mode, node.mtime_ns, *look.held(node))
            if key in versions:
                versions[key].oldest = manifest
                versions[key].snapshots += 1
            else:
                versions[key] = _Version(found, manifest, manifest)
    return sorted(versions.values(), key=lambda version: (version.found.path, -version.newest.time_ns))


def _version_document(version: _Version) -> dict[str, object]:
    return {
        **_entry(version.found),
        "snapshot": version.newest.id,
        "oldest_snapshot": version.oldest.id,
        "snapshots": version.snapshots,
    }


def _show_versions(context: Context, known: Sequence[Manifest], versions: Sequence[_Version]) -> None:
    from backstay.repository.snapshots.selectors import shortest_prefixes

    if not versions:
        context.say("nothing matches in any snapshot")
        return
    prefixes = shortest_prefixes(manifest.id for manifest in known)
    rows = [
        (
            prefixes[version.newest.id],
            format_count(version.snapshots),
            local_time(datetime_from_ns(version.found.node.mtime_ns))[:-3],
            "" if version.found.node.is_dir else format_size(version.found.node.size),
            printable(version.found.path) + ("/" if version.found.node.is_dir else ""),
        )
        for version in versions
    ]
    print_table(("Newest in", ">Of", "Modified", ">Size", "Path"), rows, context.environ)


def diff(
    ctx: typer.Context,
    old: Annotated[str, argument("ID", "The earlier snapshot.")],
    new: Annotated[str, argument("ID", "The later one.")],
    metadata: Annotated[bool, flag("Also tell of owner, mode, times and attributes.", "--metadata")] = False,
) -> int:
    """Tell what changed from one snapshot to another."""
    from backstay.operations.snapshots import look

    context = context_of(ctx)
    with context.open() as repository:
        before, after = (choosing.one(context, repository, text) for text in (old, new))
        changes = list(look.diff(repository, before, after, metadata=metadata))
    counts = {kind: sum(change.change == kind for change in changes) for kind in _MARKS}
    document = {
        "from": before.id,
        "to": after.id,
        **counts,
        "changes": [
            {**jsonout.path_fields(c.path), "change": c.change, "old_size": c.old_size, "new_size": c.new_size}
            for c in changes
        ],
    }
    context.result(document, lambda: _show_changes(context, changes, counts))
    return 0


def _show_changes(context: Context, changes: Sequence[Difference], counts: dict[str, int]) -> None:
    for change in changes:
        sys.stdout.write(f"{_MARKS[change.change]} {printable(change.path)}{_growth(change)}\n")
    told = ", ".join(f"{format_count(count)} {kind}" for kind, count in counts.items() if count)
    context.say(told or "the two snapshots hold the same")


def _growth(change: Difference) -> str:
    """The sizes before and after, as far as they tell something."""
    sizes = [format_size(size) for size in (change.old_size, change.new_size) if size is not None]
    return f"  ({' → '.join(dict.fromkeys(sizes))})" if sizes else ""


def stats(ctx: typer.Context) -> int:
    """Tell how much the repository holds."""
    from backstay.operations.snapshots.look import stats as count

    context = context_of(ctx)
    with context.open() as repository:
        found = count(repository)
    document = asdict(found) | {"compression": found.compression, "deduplication": found.deduplication}
    context.result(document, lambda: print_pairs(_stats_pairs(found), context.environ))
    return 0


def _stats_pairs(found: RepositoryStats) -> list[tuple[str, str]]:
    return [
        ("Snapshots", f"{format_count(found.snapshots)}, {format_size(found.source_bytes)} if each were restored"),
        ("Newest of each source", format_size(found.latest_bytes)),
        ("Stored", f"{format_size(found.stored_bytes)} in {plural(found.packs, 'pack')}"),
        ("  file data", format_size(found.data_bytes)),
        ("  listings", format_size(found.meta_bytes)),
        ("Before compression", f"{format_size(found.raw_bytes)}, {found.compression:.1f} times as much"),
        ("All snapshots together", f"{found.deduplication:.1f} times what is stored"),
        ("Index segments", format_count(found.index_segments)),
    ]

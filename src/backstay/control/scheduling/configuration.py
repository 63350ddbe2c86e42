"""`configuration: on_change`: what of a policy is configuration, and whether it has changed since it was last seen.

A look costs one `lstat` for each file, and nothing where the kernel tells that nothing has changed. What it finds is
kept as a digest, so that nothing is read that did not change.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

from backstay.catalog.models import ScheduleRecord
from backstay.control.policies.configuration_paths import configuration_paths
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.origins import FilesystemOrigin
from backstay.control.policies.values import expanded
from backstay.control.scheduling.remembered_looks import Place, RememberedLooks
from backstay.core.clock import Clock
from backstay.errors import BackupFailed, NotFound
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import read_patterns
from backstay.sources.source import Directory

MOST_FILES: Final = 20_000  # that are looked at each minute


class ConfigurationMarks:
    """Looks at the configuration of policies on this host."""

    def __init__(self, policies: Callable[[], LoadedPolicies | None], clock: Clock, environ: Mapping[str, str]) -> None:
        self._policies, self._environ = policies, environ
        self._looks = RememberedLooks(clock)

    def mark(self, schedule: ScheduleRecord) -> str:
        """A digest of what a schedule watches: another one as soon as a file comes, goes or changes.

        Raises NotFound for a policy that there is no more, BackupFailed when it is too much or cannot be read.
        """
        loaded = self._policies()
        if loaded is None:
            raise NotFound(f"there is no policy {schedule.policy!r}", cause="there is no policy file")
        policy = loaded.policy(schedule.policy)
        if policy.agent is not None:
            raise BackupFailed(
                f"nobody sees from here when the configuration of {schedule.policy} changes",
                cause=f"it lies on the host of the agent {policy.agent}",
                hint="give `configuration` a cron expression instead of on_change",
            )
        digest = hashlib.sha256()
        for origin in policy.sources:
            name = origin.snapshot_name(schedule.policy)
            if not isinstance(origin, FilesystemOrigin) or (schedule.sources and name not in schedule.sources):
                continue
            paths = configuration_paths(origin)
            try:
                digest.update(self._found(origin, paths))
            except _TooMany as error:
                raise BackupFailed(
                    f"the configuration of {schedule.policy} is not looked at each minute",
                    cause=f"{name} has more than {MOST_FILES} files",
                    hint="give `configuration` a cron expression instead of on_change",
                ) from error
        return digest.hexdigest()

    def close(self) -> None:
        """Watch nothing any more."""
        self._looks.close()

    def _found(self, origin: FilesystemOrigin, paths: tuple[str, ...]) -> bytes:
        """What one source looks like, in few bytes."""
        environ = self._environ
        places = [os.fsencode(expanded(path, environ)) for path in paths]
        patterns = [os.fsencode(pattern) for pattern in origin.exclude]
        try:
            for file in origin.exclude_from:
                patterns += read_patterns(Path(expanded(file, environ)))
            there = [place for place in places if os.path.lexists(place)]
            found = b"%d of %d\n" % (len(there), len(places))
            if there:
                real = tuple(map(os.path.realpath, there))
                place = Place(tuple(there), real, tuple(patterns), origin.exclude_caches, origin.one_file_system)
                found += self._looks.look(place, _digest)
            return found
        except OSError as error:
            raise BackupFailed(
                "the configuration cannot be looked at", cause=f"{error.filename or ''}: {error.strerror}"
            ) from error


class _TooMany(Exception):
    """There are more files than are looked at."""


def _digest(source: FilesystemSource) -> bytes:
    """Raises _TooMany, and OSError for what cannot be looked at."""
    digest = hashlib.sha256()
    left = MOST_FILES
    for line in _walk(source.root()):
        left -= line.endswith(b"\n")
        if left < 0:
            raise _TooMany
        digest.update(line)
    return digest.digest()


def _walk(root: Directory) -> Iterator[bytes]:
    """A line for each entry below a directory.

    Times of directories count for nothing, because those above the paths are of others too; nor do times of changed
    inodes, which are unknown of a file that was written just now.
    """
    stack = [(root, chain.from_iterable(root.pages()))]
    try:
        while stack:
            directory, entries = stack[-1]
            entry = next(entries, None)
            if entry is None:
                stack.pop()[0].close()
                continue
            name, mode, size, mtime_ns, _, inode = entry
            is_directory = stat.S_ISDIR(mode)
            yield b"%r %o " % (directory.path + b"/" + name, mode)
            yield b"\n" if is_directory else b"%d %d %d\n" % (size, mtime_ns, inode)
            if is_directory:
                below = directory.enter(entry)
                stack.append((below, chain.from_iterable(below.pages())))
    finally:
        for directory, _ in stack:
            directory.close()

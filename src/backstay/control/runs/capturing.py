"""From a source as a policy file says it to one that can be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.origins import AnyOrigin, CommandOrigin, FilesystemOrigin, PostgresqlOrigin, SqliteOrigin
from backstay.control.policies.values import expanded
from backstay.control.runs.hooks import without_secrets
from backstay.core.clock import Clock
from backstay.operations.backup.itself import patterns_without
from backstay.repository.repository import Repository
from backstay.sources.command import command_source
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters, read_patterns
from backstay.sources.mysql.dump import mysql_source
from backstay.sources.postgres.dump import dump_source
from backstay.sources.scratch import scratch_above
from backstay.sources.source import Source
from backstay.sources.sqlite.source import sqlite_source


def policies_of_snapshots(loaded: LoadedPolicies) -> dict[str, str]:
    """Which policy's snapshots have which name."""
    return {
        origin.snapshot_name(name): name
        for name, policy in loaded.content.policies.items()
        for origin in policy.sources
    }


def source_of(
    origin: AnyOrigin,
    repository: Repository,
    *,
    clock: Clock,
    environ: Mapping[str, str],
    warn: Callable[[str], None],
    tick: Callable[[], None],
) -> Source:
    """What reads a source. Raises what its kind of source does.

    `tick` is called while a program says nothing, and may raise what ends it.
    """
    if isinstance(origin, FilesystemOrigin):
        return _files(origin, repository, clock, environ)
    if isinstance(origin, PostgresqlOrigin):
        return dump_source(origin.connection, origin.schemas, clock=clock, environ=environ, warn=warn, tick=tick)
    if isinstance(origin, SqliteOrigin):
        return sqlite_source(os.fsencode(expanded(origin.path, environ)), scratch=scratch_above(repository.cache))
    if isinstance(origin, CommandOrigin):
        environ = without_secrets(environ)
        return command_source(origin.command, origin.file_name, clock=clock, environ=environ, warn=warn, tick=tick)
    return mysql_source(origin.connection, clock=clock, environ=environ, warn=warn)


def _files(
    origin: FilesystemOrigin, repository: Repository, clock: Clock, environ: Mapping[str, str]
) -> FilesystemSource:
    places = [os.fsencode(expanded(path, environ)) for path in origin.paths]
    patterns = [pattern for file in origin.exclude_from for pattern in read_patterns(Path(expanded(file, environ)))]
    patterns += [os.fsencode(pattern) for pattern in origin.exclude]
    filters = Filters(
        [*patterns, *patterns_without(repository, places, environ)],
        exclude_caches=origin.exclude_caches,
        one_file_system=origin.one_file_system,
    )
    return FilesystemSource(places, filters=filters, clock=clock)

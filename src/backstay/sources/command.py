"""What a program writes to its standard output, as a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from backstay.core.clock import Clock
from backstay.sources.generated import GeneratedSource, dump_file, path_component
from backstay.sources.program import ProgramReader

KIND: Final = "command"


def command_source(
    command: Sequence[str],
    file_name: str,
    *,
    clock: Clock,
    environ: Mapping[str, str],
    warn: Callable[[str], None],
    tick: Callable[[], None] | None = None,
) -> GeneratedSource:
    """The source of what `command`, a program and its arguments, prints; it lies in `/command/FILE_NAME`.

    The program starts when it is read. If it ends with another status than 0, or was killed, the backup fails with
    DumpFailed: half an output looks like a whole one. `warn` is told what it says although it succeeds; `tick` is
    called while it says nothing, and may raise what ends it.
    """
    reading = partial(ProgramReader, [os.fspath(word) for word in command], environ, warn, tick)
    file = dump_file(b"/" + KIND.encode(), clock.now_ns(), path_component(file_name), reading)
    return GeneratedSource(KIND, [file.path], [file])

"""The plans that a service may carry out: files of one directory, which whoever runs the service names.

A plan runs programs with the rights of the service, so that none is taken from outside; and the directory and its files
must be such that only those could have written them who run the service anyway.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstay.control.recovery.loading import LoadedPlan, load_plan
from backstay.errors import InvalidRequest, NotFound

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
_SUFFIX: Final = ".yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPlans:
    """The files `NAME.yaml` of a directory; none where no directory is named."""

    directory: Path | None

    def names(self) -> list[str]:
        """The names of all plans. Raises InvalidRequest when the directory cannot be used."""
        if self.directory is None:
            return []
        _require_safe(self.directory)
        try:
            entries = list(self.directory.iterdir())
            files = [entry.name for entry in entries if entry.name.endswith(_SUFFIX) and entry.is_file()]
        except OSError as error:
            raise _unusable(self.directory, error) from error
        return sorted(name for file in files if _NAME.fullmatch(name := file.removesuffix(_SUFFIX)))

    def load(self, name: str, environ: Mapping[str, str]) -> LoadedPlan:
        """A plan by its name. Raises NotFound, InvalidRequest, PlanInvalid."""
        if self.directory is None:
            raise NotFound(
                f"there is no recovery plan {name[:80]!r}",
                cause="the policy file names no directory of plans",
                hint="write `recovery_plans: /whole/path` under `backup_manager.service`",
            )
        if not _NAME.fullmatch(name) or name not in self.names():
            raise NotFound(
                f"there is no recovery plan {name[:80]!r}",
                cause=f"{self.directory} has no such file",
                hint="`GET /api/recovery/plans` lists them",
            )
        file = self.directory / f"{name}{_SUFFIX}"
        _require_safe(file)
        return load_plan(file, environ)


def _require_safe(path: Path) -> None:
    """See that nobody else could have written it. Raises InvalidRequest."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unusable(path, error) from error
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid not in (0, os.geteuid()):
        raise InvalidRequest(
            f"{path} is not safe: plans run programs with the rights of the service",
            cause="others than root and the user of the service could have written it",
            hint=f"look at what lies there, then `chown root {path}` and `chmod go-w {path}`",
        )


def _unusable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        f"{path} cannot be used for recovery plans",
        cause=error.strerror or str(error),
        hint="`recovery_plans` names a directory, which the user of the service reads",
    )

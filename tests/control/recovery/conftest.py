"""A repository with a backup of some files, and plans for it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backstay.control.manager.keeping import Unrecorded
from backstay.control.manager.manager import BackupManager
from backstay.control.manager.setup import Setup
from backstay.control.opening.opener import Opener
from backstay.control.recovery.loading import LoadedPlan, load_plan
from backstay.control.recovery.running import Company, Recovery, state_file
from backstay.control.recovery.state import RecoveryState
from backstay.core.clock import Clock, SystemClock
from tests.control.manager.conftest import PASSWORD


def _no(question: str) -> bool:
    del question
    return False


@dataclass
class Site:
    """A place with a repository, whose plans are written and carried out here."""

    root: Path
    manager: BackupManager
    environ: dict[str, str]
    clock: Clock = field(default_factory=SystemClock)
    answers: Callable[[str], bool] = _no
    told: list[tuple[str, str]] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def plan_file(self) -> Path:
        return self.root / "plan.yaml"

    def lines(self) -> list[str]:
        """What steps wrote into the log, in order."""
        return self.log.read_text().split() if self.log.exists() else []

    def plan(self, text: str) -> LoadedPlan:
        self.plan_file.write_text(textwrap.dedent(text))
        return load_plan(self.plan_file, self.environ)

    def recover(self, text: str | None = None, *, stop_if_asked: Callable[[], None] = lambda: None) -> Recovery:
        """Carry a plan out, or the last one again."""
        loaded = load_plan(self.plan_file, self.environ) if text is None else self.plan(text)
        company = Company(stop_if_asked=stop_if_asked, ask=self.answers, tell=self._tell)
        with RecoveryState.open(state_file(self.plan_file), self.clock) as state:
            recovery = Recovery(
                loaded=loaded,
                state=state,
                manager=self.manager,
                environ=self.environ,
                clock=self.clock,
                company=company,
            )
            recovery.run()
        return recovery

    def _tell(self, step: str, what: str, more: str) -> None:
        del more
        self.told.append((step, what))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    environ = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "ROOT": str(tmp_path)}
    clock = SystemClock()
    opener = Opener.at(str(tmp_path / "repository"), environ=environ, clock=clock, warn=print, password=PASSWORD)
    manager = BackupManager.of_setup(Setup(environ=environ, clock=clock, opens=opener), Unrecorded(clock))
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / f"file-{number}").write_text(f"number {number}\n")
    manager.create_backup(source, name="files")
    return Site(tmp_path, manager, environ)

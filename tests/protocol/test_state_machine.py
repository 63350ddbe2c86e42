"""Backups, drops and collections in any sequence on a store that fails, against a dictionary of what must be there.

BACKSTAY_STATE_EXAMPLES and BACKSTAY_STATE_STEPS set the extent: 250 examples of 25 steps, 1 500 for a nightly run.
Examples are derived from the code of the machine, so that every run tries the same.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backstay.errors import BackstayError
from backstay.repository.repository import Repository
from backstay.testing import CrashPoint, Fault, FaultKind, FaultyBackend, Operation
from tests.protocol.world import CONTENTS, DIRECTORIES, FILES, HOSTS, Tree, World, patched, template

FAULTS: list[tuple[FaultKind, Operation]] = [
    ("error_before", "store"),
    ("error_before", "retrieve"),
    ("error_before", "list"),
    ("error_before", "delete"),
    ("error_after", "store"),
    ("error_after", "delete"),
    ("crash_before", "store"),
    ("crash_before", "delete"),
    ("crash_before", "list"),
    ("crash_after", "store"),
    ("crash_after", "delete"),
    ("incomplete_listing", "list"),
    ("short_read", "retrieve"),
    ("bit_flip", "retrieve"),
]
PREFIXES = ("", "", "packs/", "meta/", "index/", "snapshots/", "sessions/", "gc/", "drops/")


class Backups(RuleBasedStateMachine):
    """One user after another; `repository` lives on between steps until the program crashes."""

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.world = World(0, None)
        self.stack.enter_context(patched(lambda: self.world))
        start = template(0)
        self.world.store._shelf.objects.update(start.objects)
        self.store = FaultyBackend(self.world.store)
        self.repository: Repository | None = None
        self.trees: dict[str, Tree] = {host: {} for host in HOSTS}

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    def opened(self) -> Repository:
        if self.repository is None:
            self.repository = self.world.open(self.store)
        return self.repository

    @rule(
        host=st.sampled_from(HOSTS),
        kind=st.sampled_from(("full", "incremental", "differential")),
        directory=st.sampled_from(DIRECTORIES),
        name=st.sampled_from(FILES),
        content=st.sampled_from((None, *CONTENTS)),
    )
    def back_up(self, host: str, kind: str, directory: bytes, name: bytes, content: bytes | None) -> None:
        tree = {name: dict(files) for name, files in self.trees[host].items()}
        files = tree.setdefault(directory, {})
        if content is None:
            files.pop(name, None)
        else:
            files[name] = content
        self.trees[host] = tree
        self.attempt(lambda: self.world.back_up(self.opened(), tree, host=host, kind=kind))  # type: ignore[arg-type]

    @rule(chosen=st.integers(min_value=0))
    @precondition(lambda self: self.world.seen.acknowledged - self.world.seen.dropping)
    def drop(self, chosen: int) -> None:
        left = sorted(self.world.seen.acknowledged - self.world.seen.dropping)
        ulid = left[chosen % len(left)]
        self.world.seen.dropping.add(ulid)
        self.attempt(lambda: self.opened().snapshots.drop(ulid, "test", self.world.clock))

    @rule()
    def collect(self) -> None:
        self.attempt(lambda: self.world.collect(self.opened()))

    @rule(fault=st.sampled_from(FAULTS), prefix=st.sampled_from(PREFIXES), at=st.integers(1, 12))
    def fail_once(self, fault: tuple[FaultKind, Operation], prefix: str, at: int) -> None:
        kind, operation = fault
        self.store.script(Fault(kind=kind, operation=operation, prefix=prefix, at=at))

    @rule(prefix=st.sampled_from(("packs/", "meta/")), at=st.integers(1, 4))
    def tear(self, prefix: str, at: int) -> None:
        """Half a pack lies under its name, as in a store without atomic writes."""
        self.store.script(Fault(kind="torn", operation="store", prefix=prefix, at=at))

    @rule(seed=st.integers(0, 99))
    def burst(self, seed: int) -> None:
        """The store answers badly for a while."""
        self.store.rates.update({"error_before": 0.1, "error_after": 0.1})
        self.store._rng.seed(seed)

    @rule()
    def heal(self) -> None:
        self.store.heal()

    @rule()
    def reopen(self) -> None:
        self.repository = None

    @rule(hours=st.sampled_from((0.5, 2)))
    def wait(self, hours: float) -> None:
        self.world.clock.advance(hours * 3600)

    def attempt(self, action: object) -> None:
        assert callable(action)
        try:
            action()
        except CrashPoint:
            self.repository = None  # with it dies all that the program knew
            self.store.revive()
        except BackstayError:
            pass

    @invariant()
    def everything_is_there(self) -> None:
        if hasattr(self, "world"):
            self.world.check_snapshots()

    @rule()
    def clean_up(self) -> None:
        """Whatever happened, two collections on a healthy store leave only what is needed, and torn packs."""
        self.store.heal()
        self.world.check(garbage=not self.store.hits["torn"])


Backups.TestCase.settings = settings(
    max_examples=int(os.environ.get("BACKSTAY_STATE_EXAMPLES", "250")),
    stateful_step_count=int(os.environ.get("BACKSTAY_STATE_STEPS", "25")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
# Minutes on a machine that has much else to do.
TestBackups = pytest.mark.long(pytest.mark.timeout(1800)(Backups.TestCase))

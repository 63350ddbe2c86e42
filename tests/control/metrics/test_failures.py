"""Whether something failed that was not done again since, against a model that knows each source by itself."""

from __future__ import annotations

import random

import pytest

from backstay.catalog.database import Catalog
from backstay.catalog.models.base import Document
from backstay.control.metrics.failures import open_failure
from backstay.testing import FakeClock
from tests.control.notifying.rows import job

SEEDS = range(60)


@pytest.fixture
def database() -> str:
    return "sqlite"


def result(good: list[str], bad: list[str]) -> Document:
    """What a run tells of its sources, by the names of their snapshots."""
    told = [{"name": name, "error": None} for name in good] + [{"name": name, "error": {"code": "X"}} for name in bad]
    return {"outcome": {"sources": told}}


def test_a_policy_fails_as_long_as_a_source_of_it_does(new_catalog: Catalog, clock: FakeClock) -> None:
    for seed in SEEDS:
        chance, policy = random.Random(seed), f"p{seed}"
        fails: dict[str, bool] = {}
        with new_catalog.session() as session:
            for _ in range(5):
                asked = chance.choice([[], ["a"], ["b"], ["a", "b"]])
                now = {f"{policy}-{name}": chance.random() < 0.5 for name in asked or ["a", "b"]}
                fails |= now
                bad = [name for name, failed in now.items() if failed]
                row = job(
                    clock.now(),
                    policy=policy,
                    status="failed" if bad else "succeeded",
                    arguments={"sources": asked} if asked else {},
                    result=result([name for name, failed in now.items() if not failed], bad),
                )
                session.add(row)
                clock.advance(60)
        with new_catalog.reading() as session:
            assert (open_failure(session, "backup", policy) is not None) == any(fails.values()), f"seed {seed}"


def test_a_source_named_as_its_policy_is_not_the_one_without_a_name(new_catalog: Catalog, clock: FakeClock) -> None:
    with new_catalog.session() as session:
        session.add(job(clock.now(), status="failed", result=result(["shop-shop"], ["shop"])))
        clock.advance(60)
        session.add(job(clock.now(), arguments={"sources": ["shop-shop"]}, result=result(["shop-shop"], [])))
    with new_catalog.reading() as session:
        assert open_failure(session, "backup", "shop") is not None

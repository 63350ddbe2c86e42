"""Recovery plans as jobs: carried out, cancelled, gone on with after any end, and by nobody but those who may."""

from __future__ import annotations

import os
import shutil
import sqlite3
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from backstay.catalog.models import Job
from backstay.control.jobs.listing import JobFilters
from backstay.control.recovery.kept_plans import KeptPlans
from backstay.control.recovery.report import digest_of
from backstay.control.service.recovering import forget_states, plans_of
from backstay.control.service.service import Service
from backstay.errors import InvalidRequest, NotFound
from tests.control.jobs.recording import eventually
from tests.control.service.conftest import POLICY, Place, ended

SHOP = """
    description: the shop
    steps:
      files: {type: restore, backup: latest:files, to: ROOT/out, verify: true}
      mark: {type: command, command: [sh, -c, "echo mark >> ROOT/log; echo a secret"], needs: [files]}
      open: {type: command, command: [sh, -c, "echo open >> ROOT/log"], needs: [mark], confirm: open the shop?}
"""


class Plans:
    """A service with a backup and a directory of plans."""

    def __init__(self, service: Service, place: Place) -> None:
        self.service, self.place, self.directory = service, place, place.root / "plans"
        self.directory.mkdir()
        said = f"  service: {{recovery_plans: {self.directory}}}\npolicies:"
        place.file.write_text(POLICY.format(root=place.root).replace("policies:", said, 1))
        service.reload()
        self.write("shop", SHOP)

    def write(self, name: str, text: str) -> None:
        (self.directory / f"{name}.yaml").write_text(textwrap.dedent(text).replace("ROOT", str(self.place.root)))

    def ask(self, name: str = "shop", **arguments: Any) -> Job:
        loaded = plans_of(self.service.context()).load(name, self.place.environ)
        asked = {"plan": name, "digest": digest_of(loaded)} | arguments
        return self.service.jobs.create("recovery", asked, actor="ann")

    def run(self, name: str = "shop", **arguments: Any) -> Job:
        return ended(self.service.jobs, self.ask(name, **arguments))

    @property
    def log(self) -> list[str]:
        file = self.place.root / "log"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def plans(service: Service, place: Place) -> Iterator[Plans]:
    ended(service.jobs, service.jobs.create("backup", {}, actor="ann", policy="files"))
    yield Plans(service, place)
    (place.root / "go").touch()  # whatever waits for it ends


def outcomes(job: Job) -> dict[str, str]:
    assert job.result is not None
    return {step["name"]: step["outcome"] for step in job.result["steps"]}


def code(job: Job) -> str:
    assert job.error is not None
    return str(job.error["code"])


def test_a_plan_is_carried_out_with_its_report_and_a_log(plans: Plans) -> None:
    job = plans.run(confirmed=["open"])
    assert job.status == "succeeded", job.error
    assert outcomes(job) == {"files": "done", "mark": "done", "open": "done"}
    assert plans.log == ["mark", "open"]
    assert (plans.place.root / "out" / str(plans.place.root)[1:] / "src/f1").is_file()
    assert job.progress is not None
    assert (job.progress["done"], job.progress["total"]) == (3, 3)
    lines = [line.message for line in plans.service.jobs.lines(job.id)]
    assert {"files: begun", "files: done", "open: done"} <= set(lines)
    assert "a secret" not in str(job.result)
    assert "a secret" not in str(lines)
    kinds = [one.kind for one in plans.service.jobs.page(JobFilters()).items]
    assert sorted(kinds) == ["backup", "recovery"]  # its restores are parts of it


SECRETIVE = """
    steps:
      says: {type: command, command: [sh, -c, "echo a secret >&2; exit 3"], retries: 1, on_error: continue}
      prints: {type: command, command: [echo, a secret], expect: another secret, on_error: continue}
      asks: {type: query, connection: "sqlite:///ROOT/shop.db", query: "SELECT 'a secret'", expect: 1}
"""


def test_why_a_step_failed_is_told_without_what_programs_and_databases_said(plans: Plans) -> None:
    plans.write("secretive", SECRETIVE)
    sqlite3.connect(plans.place.root / "shop.db").close()
    job = plans.run("secretive")
    assert (job.status, code(job)) == ("failed", "StepFailed")
    lines = [line.message for line in plans.service.jobs.lines(job.id)]
    assert "says: failed: sh failed: it ended with status 3" in lines
    assert job.result is not None
    causes = [step["error"]["cause"] for step in job.result["steps"]]
    assert causes == ["it ended with status 3", *["it is not what the plan expects"] * 2]
    assert "secret" not in f"{job.error} {job.result['steps']} {lines}".replace("secretive", "")
    state = plans.place.root / f"data/recoveries/{job.id}.state"
    assert str(state) in job.error["solution"]  # type: ignore[index]
    for said in ("3: a secret", "'a secret' and not 'another secret'", "'a secret' and not 1"):
        assert said in state.read_text()


def test_what_is_not_confirmed_is_not_done_and_the_rest_is_gone_on_with(plans: Plans) -> None:
    first = plans.run()
    assert (first.status, code(first)) == ("failed", "InvalidRequest")
    assert outcomes(first) == {"files": "done", "mark": "done", "open": "failed"}
    second = plans.run(confirmed=["open"], run=first.id)
    assert second.status == "succeeded", second.error
    assert outcomes(second) == {"files": "before", "mark": "before", "open": "done"}
    assert plans.log == ["mark", "open"]


def test_a_look_writes_nothing(plans: Plans) -> None:
    job = plans.run(dry_run=True)
    assert job.status == "succeeded", job.error
    assert job.result is not None
    assert (job.result["dry_run"], job.result["steps"][0]["preview"]["files"]) == (True, 5)
    assert not (plans.place.root / "out").exists()
    assert not (plans.place.root / "data/recoveries").exists()


WAITS = """
    steps:
      first: {type: command, command: [sh, -c, "echo first >> ROOT/log"]}
      waits: {type: command, command: [sh, -c, "echo waits >> ROOT/log; until [ -e ROOT/go ]; do sleep 0.05; done"],
              needs: [first]}
      last: {type: command, command: [sh, -c, "echo last >> ROOT/log"], needs: [waits]}
"""


def test_a_recovery_that_is_cancelled_ends_and_can_be_gone_on_with(plans: Plans) -> None:
    plans.write("waits", WAITS)
    job = plans.ask("waits")
    eventually(lambda: plans.log == ["first", "waits"], "the second step")
    plans.service.jobs.cancel(job.id, "ann")
    assert ended(plans.service.jobs, job).status == "cancelled"
    (plans.place.root / "go").touch()
    again = plans.run("waits", run=job.id)
    assert again.status == "succeeded", again.error
    assert plans.log == ["first", "waits", "waits", "last"]


def test_a_plan_is_carried_out_by_one_job_at_a_time(plans: Plans, place: Place) -> None:
    plans.write("waits", WAITS)
    first = plans.ask("waits")
    eventually(lambda: plans.log == ["first", "waits"], "the second step")
    second = plans.run("waits")
    assert (second.status, code(second)) == ("failed", "JobConflict")
    (place.root / "go").touch()
    assert ended(plans.service.jobs, first).status == "succeeded"
    assert plans.log == ["first", "waits", "last"]
    assert plans.run("waits").status == "succeeded"  # one after another they may


def test_a_service_that_is_stopped_gives_its_recovery_back_and_the_next_goes_on(plans: Plans, place: Place) -> None:
    plans.write("waits", WAITS)
    job = plans.ask("waits")
    eventually(lambda: plans.log == ["first", "waits"], "the second step")
    plans.service.stop()
    plans.service.close()
    (place.root / "go").touch()
    with place.open() as service:
        service.start()
        done = ended(service.jobs, job)
        assert done.status == "succeeded", done.error
        assert outcomes(done)["first"] == "before"
        assert plans.log == ["first", "waits", "waits", "last"]
        service.stop()


def test_what_another_host_has_done_is_not_done_again(plans: Plans) -> None:
    first = plans.run()
    shutil.rmtree(plans.place.root / "data/recoveries")
    assert code(plans.run(confirmed=["open"], run=first.id)) == "InvalidRequest"
    with plans.service.catalog.session() as session:  # as after a crash elsewhere
        session.execute(
            update(Job)
            .where(Job.id == first.id)
            .values(status="queued", progress={"host": "elsewhere"}, finished_at=None, settled_at=None)
        )
    plans.service.engine.forget(plans.service.clock.now().replace(year=9999))
    again = ended(plans.service.jobs, first)
    assert again.error is not None
    assert (again.status, again.error["cause"]) == ("failed", "it ran on elsewhere")
    assert plans.log == ["mark"]


def test_a_plan_that_was_changed_since_it_was_asked_for_is_not_carried_out(plans: Plans) -> None:
    job = plans.run(digest="0" * 64)
    assert (job.status, code(job)) == ("failed", "InvalidRequest")
    assert plans.log == []
    assert not (plans.place.root / "out").exists()


@pytest.fixture
def kept(tmp_path: Path) -> KeptPlans:
    """A directory of plans, without a service."""
    directory = tmp_path / "plans"
    directory.mkdir()
    (directory / "shop.yaml").write_text(textwrap.dedent(SHOP).replace("ROOT", str(tmp_path)))
    return KeptPlans(directory=directory)


def test_plans_are_files_of_the_directory_and_nothing_else(kept: KeptPlans, tmp_path: Path) -> None:
    directory = tmp_path / "plans"
    (directory / "broken.yaml").write_text("steps: 7")
    (directory / "notes.txt").touch()
    (directory / ".hidden.yaml").touch()
    (directory / "sub.yaml").mkdir()
    (tmp_path / "outside.yaml").write_text(textwrap.dedent(SHOP))
    assert kept.names() == ["broken", "shop"]
    for name in ("../outside", "outside", "", ".", "shop.yaml", "sub", ".hidden", "x" * 200, "shop\0"):
        with pytest.raises(NotFound, match="no recovery plan"):
            kept.load(name, {})
    with pytest.raises(NotFound, match="no recovery plan"):
        KeptPlans(directory=None).load("shop", {})


def test_plans_that_others_may_write_are_not_carried_out(kept: KeptPlans, tmp_path: Path) -> None:
    directory, file = tmp_path / "plans", tmp_path / "plans/shop.yaml"
    file.chmod(0o666)
    with pytest.raises(InvalidRequest, match="not safe"):
        kept.load("shop", {})
    file.chmod(0o644)
    directory.chmod(0o777)
    with pytest.raises(InvalidRequest, match="not safe"):
        kept.load("shop", {})
    directory.chmod(0o755)
    assert kept.load("shop", {}).steps


def test_what_is_no_directory_is_told(kept: KeptPlans, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be used"):
        KeptPlans(directory=tmp_path / "plans/shop.yaml").names()
    with pytest.raises(InvalidRequest, match="cannot be used"):
        KeptPlans(directory=tmp_path / "none").load("shop", {})


def test_what_a_recovery_has_done_that_has_not_ended_is_kept_however_old(plans: Plans, place: Place) -> None:
    plans.write("waits", WAITS)
    first = plans.ask("waits")
    eventually(lambda: plans.log == ["first", "waits"], "the second step")
    later = datetime.now(UTC).replace(year=9999)
    assert forget_states(place.root / "data", later, plans.service.jobs) == 0
    assert (place.root / f"data/recoveries/{first.id}.state").exists()
    (place.root / "go").touch()
    ended(plans.service.jobs, first)
    assert forget_states(place.root / "data", later, plans.service.jobs) == 1


def test_what_nobody_went_on_with_is_forgotten(service: Service, tmp_path: Path) -> None:
    (tmp_path / "recoveries").mkdir()
    old, new = (tmp_path / "recoveries" / f"{name}.state" for name in ("old", "new"))
    for file, time in ((old, 1000), (new, 3000)):
        file.touch()
        os.utime(file, (time, time))
    before = datetime.fromtimestamp(2000, UTC)
    assert forget_states(tmp_path, before, service.jobs) == 1
    assert [file.name for file in (tmp_path / "recoveries").iterdir()] == ["new.state"]
    assert forget_states(tmp_path / "none", before, service.jobs) == 0

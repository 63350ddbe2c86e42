"""Recoveries: order, failures, questions, times, and going on after any end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backstay.control.manager.keeping import Unrecorded
from backstay.control.manager.manager import BackupManager
from backstay.control.manager.setup import Setup
from backstay.control.recovery.previewing import preview_plan
from backstay.control.recovery.report import report
from backstay.control.recovery.running import state_file
from backstay.control.recovery.state import RecoveryState
from backstay.errors import (
    CorruptedBackup,
    Interrupted,
    InvalidRequest,
    JobConflict,
    NotFound,
    QuorumNotReached,
    RestoreConflict,
    StepFailed,
    StepTimeout,
)
from backstay.graph.manager import GraphBackupManager
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata
from backstay.repository.cas import ContentAddressableStorage
from backstay.trust.quorum import QuorumPolicy
from backstay.trust.validators import Validator
from tests.control.recovery.conftest import Site

CHAIN = """
    steps:
      look: {type: verify, backup: latest:files, read_data: 100}
      files:
        type: restore
        backup: latest:files
        source: ${ROOT}/source
        to: ${ROOT}/out
        needs: [look]
        verify: true
      mark: {type: command, command: [sh, -c, "echo mark >> $ROOT/log"], needs: [files]}
      there: {type: file, path: "${ROOT}/out/file-1", contains: "number 1", needs: [files]}
      end: {type: command, command: [sh, -c, "echo end >> $ROOT/log"], needs: [mark, there]}
"""


def test_steps_run_in_their_order_and_once(site: Site) -> None:
    done = site.recover(CHAIN.replace("$ROOT/", str(site.root) + "/"))
    assert done.ok, done.errors
    assert site.lines() == ["mark", "end"]
    assert (site.root / "out/file-2").read_text() == "number 2\n"
    again = site.recover()
    assert again.ok
    assert set(again.outcomes.values()) == {"before"}
    assert site.lines() == ["mark", "end"]


class Crash(BaseException):
    """The process ends here."""


def test_a_crash_at_any_line_of_the_state_is_gone_on_from(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after each line: what is done is not done again, and in the end all is done."""
    whole = RecoveryState._append
    text = CHAIN.replace("$ROOT/", str(site.root) + "/")
    for last in range(100):
        for after in (False, True):
            for path in (state_file(site.plan_file), site.log):
                path.unlink(missing_ok=True)
            written: list[str] = []

            def append(state: RecoveryState, line: Mapping[str, Any], *, after: bool = after) -> None:
                if len(written) == last and after:  # noqa: B023 - used within the round alone
                    whole(state, line)
                written.append(json.dumps(line))  # noqa: B023
                if len(written) > last:  # noqa: B023
                    raise Crash
                whole(state, line)

            monkeypatch.setattr(RecoveryState, "_append", append)
            try:
                site.recover(text)
                assert len(written) <= last
                return
            except Crash:
                pass
            monkeypatch.setattr(RecoveryState, "_append", whole)
            noted = {
                name
                for name, state in RecoveryState.peek(state_file(site.plan_file), site.clock).steps.items()
                if state.is_done
            }
            done = site.recover()
            assert done.ok, (last, after, done.errors)
            assert {name for name, outcome in done.outcomes.items() if outcome == "before"} == noted
            assert site.lines().count("mark") <= 2, "at most the one that was under way is run again"
            if "mark" in noted:
                assert site.lines().count("mark") == 1
    raise AssertionError("it never came to its end")


def test_a_torn_last_line_says_nothing(site: Site) -> None:
    site.recover(CHAIN.replace("$ROOT/", str(site.root) + "/"))
    path = state_file(site.plan_file)
    data = path.read_bytes()
    begin_of_last = data.rstrip(b"\n").rpartition(b"\n")[0]
    path.write_bytes(data[: len(begin_of_last) + 8])
    again = site.recover()
    assert again.ok
    assert [name for name, outcome in again.outcomes.items() if outcome == "done"] == ["end"]


def test_only_one_process_carries_a_plan_out(site: Site) -> None:
    site.plan(CHAIN)
    with RecoveryState.open(state_file(site.plan_file), site.clock), pytest.raises(JobConflict, match="is running"):
        site.recover()


def test_latest_means_the_same_in_all_runs(site: Site) -> None:
    text = """
    steps:
      wait: {type: file, path: "${ROOT}/go-on"}
      files: {type: restore, backup: latest, source: "${ROOT}/source", to: "${ROOT}/out", needs: [wait]}
    """
    assert not site.recover(text).ok
    (site.root / "source/file-1").write_text("later")
    site.manager.create_backup(site.root / "source", name="files")
    (site.root / "go-on").touch()
    assert site.recover().ok
    assert (site.root / "out/file-1").read_text() == "number 1\n"


def test_what_was_done_must_not_be_changed(site: Site) -> None:
    text = """
    steps:
      one: {type: command, command: ["true"]}
      two: {type: command, command: ["false"], needs: [one]}
    """
    assert isinstance(site.recover(text).errors["two"], StepFailed)
    assert site.recover(text.replace('["false"]', '["true"]')).ok, "what failed may be mended"
    with pytest.raises(InvalidRequest, match="the plan was changed"):
        site.recover(text.replace('one: {type: command, command: ["true"]', 'one: {type: command, command: ["echo"]'))


@pytest.mark.parametrize(
    ("how", "ok", "outcomes"),
    [
        ("stop", False, {"bad": "failed", "after": "not begun", "other": "not begun"}),
        ("skip", False, {"bad": "failed", "after": "blocked", "other": "done"}),
        ("continue", True, {"bad": "failed", "after": "done", "other": "done"}),
    ],
)
def test_what_a_failure_keeps_from_running(site: Site, how: str, ok: bool, outcomes: dict[str, str]) -> None:
    text = f"""
    parallel: 1
    steps:
      bad: {{type: command, command: ["false"], on_error: {how}}}
      after: {{type: command, command: ["true"], needs: [bad]}}
      other: {{type: command, command: ["true"]}}
    """
    done = site.recover(text)
    assert (done.ok, done.outcomes) == (ok, outcomes)


def test_steps_that_need_nothing_of_each_other_run_at_once(site: Site) -> None:
    wait = "for i in $(seq 100); do [ -e $0 ] && exit 0; sleep 0.05; done; exit 1"
    text = f"""
    steps:
      one: {{type: command, command: [sh, -c, "touch {site.root}/one; exec sh -c '{wait}' {site.root}/two"]}}
      two: {{type: command, command: [sh, -c, "touch {site.root}/two; exec sh -c '{wait}' {site.root}/one"]}}
    """
    assert site.recover(text).ok


def test_conflicts_are_told_before_anything_is_written(site: Site) -> None:
    text = """
    steps:
      files: {type: restore, backup: latest, source: "${ROOT}/source", to: "${ROOT}/out", retries: 3}
    """
    out = site.root / "out"
    out.mkdir()
    (out / "file-1").write_text("mine")
    done = site.recover(text)
    assert isinstance(done.errors["files"], RestoreConflict)
    assert [what for _, what in site.told] == ["begun", "failed"], "trying again would not help"
    assert [path.name for path in out.iterdir()] == ["file-1"]


def test_attempts_and_times(site: Site) -> None:
    text = f"""
    steps:
      third: {{type: command, command: [sh, -c, "echo x >> {site.log}; [ $(wc -l < {site.log}) -ge 2 ]"], retries: 1}}
      slow: {{type: command, command: [sleep, "30"], timeout: 1s, on_error: skip}}
    """
    done = site.recover(text)
    assert done.outcomes == {"third": "done", "slow": "failed"}
    assert isinstance(done.errors["slow"], StepTimeout)
    assert site.lines() == ["x", "x"]
    document = report(done, site.clock.now())
    assert document["steps"][0]["attempts"] == 2
    assert 1.0 <= document["rto_s"] < 20
    assert not document["ok"]


def test_what_a_step_asks_is_asked(site: Site) -> None:
    text = """
    steps:
      ask: {type: command, command: ["true"], confirm: is the network ready?}
    """
    asked: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return len(asked) > 1

    site.answers = answer
    assert isinstance(site.recover(text).errors["ask"], InvalidRequest)
    assert site.recover().ok
    assert asked == ["ask: is the network ready?"] * 2


@pytest.mark.parametrize(
    ("on_error", "outcomes"),
    [
        ("stop", {"ask": "failed", "same": "not begun", "after": "not begun", "other": "not begun"}),
        ("skip", {"ask": "failed", "same": "done", "after": "blocked", "other": "done"}),
        ("continue", {"ask": "failed", "same": "done", "after": "done", "other": "done"}),
    ],
)
def test_a_step_that_is_not_confirmed_keeps_from_beginning_what_one_that_fails_does(
    site: Site, on_error: str, outcomes: dict[str, str]
) -> None:
    text = f"""
    parallel: 4
    steps:
      ask: {{type: command, command: ["true"], confirm: really?, on_error: {on_error}}}
      same: {{type: command, command: ["true"]}}
      other: {{type: command, command: ["true"], needs: [same]}}
      after: {{type: command, command: ["true"], needs: [ask]}}
    """
    assert site.recover(text).outcomes == outcomes


def test_who_asks_for_the_end_gets_it_and_nothing_is_lost(site: Site) -> None:
    text = """
    steps:
      quick: {type: command, command: ["true"]}
      slow: {type: command, command: [sleep, "30"], needs: [quick]}
    """

    def stop() -> None:
        if ("slow", "begun") in site.told:
            raise Interrupted("interrupted")

    with pytest.raises(Interrupted):
        site.recover(text, stop_if_asked=stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("step")]
    state = RecoveryState.peek(state_file(site.plan_file), site.clock)
    assert state.of("quick").is_done
    assert not state.of("slow").is_done


def test_a_backup_that_is_not_there_is_told_before_anything_is_done(site: Site) -> None:
    text = f"""
    steps:
      mark: {{type: command, command: [sh, -c, "echo mark >> {site.log}"]}}
      files: {{type: restore, backup: "latest:nothing", to: "{site.root}/out"}}
    """
    with pytest.raises(NotFound):
        site.recover(text)
    assert site.lines() == []


def test_commands_know_no_password(site: Site) -> None:
    for name in ("", "NEW_", "TO_", "SFTP_", "FTP_", "WEBDAV_"):
        site.environ[f"BACKSTAY_{name}PASSWORD"] = "hunter2"
    site.environ["BACKSTAY_ADMIN_TOKEN"] = "hunter2"
    site.environ["BACKSTAY_DATABASE"] = "postgresql://backstay:hunter2@catalog/backstay"
    site.environ["BACKSTAY_PASSWORD_FILE"] = "/a/file"
    done = site.recover('steps:\n  env: {type: command, command: [env], environment: {A: b}, directory: "${ROOT}"}\n')
    assert done.ok
    output = site.root.joinpath("plan.yaml.state").read_text()
    assert "A=b" in output
    assert "BACKSTAY_STEP=env" in output
    assert "BACKSTAY_PASSWORD_FILE=/a/file" in output
    assert "hunter2" not in output


def test_a_damaged_backup_stops_what_needs_it(site: Site) -> None:
    pack = max(
        (site.root / "repository/packs").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0
    )
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    done = site.recover(CHAIN)
    assert isinstance(done.errors["look"], CorruptedBackup)
    assert not (site.root / "out").exists()


def test_a_look_tells_sizes_and_conflicts_and_writes_nothing(site: Site) -> None:
    (site.root / "out").mkdir()
    (site.root / "out/file-1").write_text("mine")
    loaded = site.plan(CHAIN)
    state = RecoveryState.peek(state_file(site.plan_file), site.clock)
    found = preview_plan(loaded, state, site.manager, environ=site.environ, clock=site.clock)
    steps = {step["name"]: step for step in found.document["steps"]}
    assert steps["files"]["preview"]["conflicts"] == [str(site.root / "source/file-1")]
    assert steps["files"]["preview"]["refused"]
    assert [steps[name]["wave"] for name in ("look", "files", "end")] == [0, 1, 3]
    assert found.document["bytes"] == 27
    assert found.shortages == ()
    assert not state_file(site.plan_file).exists()
    assert sorted(path.name for path in (site.root / "out").iterdir()) == ["file-1"]


def test_the_longest_chain_is_told(site: Site) -> None:
    text = """
    steps:
      a: {type: command, command: [sleep, "0.3"]}
      b: {type: command, command: ["true"]}
      c: {type: command, command: ["true"], needs: [a, b]}
    """
    assert report(site.recover(text), site.clock.now())["critical_path"] == ["a", "c"]


def test_a_manager_of_a_recovery_leaves_no_catalog(site: Site) -> None:
    site.recover(CHAIN)
    assert not (site.root / "home/.local/share/backstay").exists()


def test_the_same_manager_may_be_made_of_any_opener(site: Site, tmp_path: Path) -> None:
    setup = Setup(environ=site.environ, clock=site.clock, opens=site.manager.opener)
    assert BackupManager.of_setup(setup, Unrecorded(site.clock)).list() == site.manager.list()


def test_what_another_target_holds_is_not_taken_for_the_steps_own(site: Site) -> None:
    """The data directory that a cut-short run left is removed, and never what a variable names now."""
    text = 'steps:\n  pg: {type: cluster, cluster: main, to: "${ROOT}/${WHERE}"}\n'
    site.environ["WHERE"] = "first"
    loaded = site.plan(text)
    with RecoveryState.open(state_file(site.plan_file), site.clock) as state:
        state.note("pg", "begun", digest=loaded.digests["pg"], place=str(site.root / "first"))
        state.note("pg", "writing")
    site.environ["WHERE"] = "precious"
    kept = site.root / "precious/data"
    kept.parent.mkdir()
    kept.write_text("mine")
    assert not site.recover().ok
    assert kept.read_text() == "mine"
    site.recover(text.replace("cluster: main", "cluster: other"))
    assert kept.read_text() == "mine"


def test_what_was_done_for_another_place_is_not_taken_for_done(site: Site) -> None:
    """A plan that was tried with one value of a variable has brought nothing back where another one leads."""
    site.environ["WHERE"] = "trial"
    text = (
        'steps:\n  files: {type: restore, backup: "latest:files", source: "${ROOT}/source", to: "${ROOT}/${WHERE}"}\n'
    )
    assert site.recover(text).ok
    site.environ["WHERE"] = "real"
    with pytest.raises(InvalidRequest, match="another place"):
        site.recover()
    assert not (site.root / "real").exists()


def test_what_a_program_started_ends_with_it(site: Site) -> None:
    text = f"""
    steps:
      slow: {{type: command, command: [sh, -c, "(sleep 3; echo late >> {site.log}) & sleep 30"], timeout: 1s}}
    """
    assert isinstance(site.recover(text).errors["slow"], StepTimeout)
    time.sleep(3)
    assert site.lines() == []


def test_only_what_a_quorum_accepts_is_brought_back(site: Site) -> None:
    anna = Validator.generate("anna")
    policy = QuorumPolicy(required=1, validators=[anna.public])
    file = site.root / "quorum.yaml"
    file.write_text(json.dumps({"required": 1, "validators": [{"name": "anna", "public_key": anna.public.public_key}]}))
    site.environ["BACKSTAY_QUORUM_POLICY"] = str(file)
    text = "steps:\n  etl: {type: graph, graph: etl, to: '${ROOT}/out'}\n"
    shots = []
    with site.manager.opener.open() as repository:
        for content in (b"attested", b"not attested"):
            graph = MetadataGraph("etl")
            value = ContentAddressableStorage(repository).store(content)
            graph.add(Node(id="a", hash=value, status="completed", metadata=NodeMetadata(path="a")))
            shots.append(GraphBackupManager(repository, graph, quorum=policy).create_snapshot().id)
    assert isinstance(site.recover(text).errors["etl"], QuorumNotReached)
    with site.manager.opener.open() as repository:
        GraphBackupManager(repository, quorum=policy).attest(shots[0], anna)
    assert site.recover().ok
    assert (site.root / "out/a").read_bytes() == b"attested"

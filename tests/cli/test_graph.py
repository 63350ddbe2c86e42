"""`graph`: from a document and files to snapshots, and back."""

from __future__ import annotations

import json
import signal
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from backstay.cli import graph as cli_graph
from backstay.graph.file_outputs import FileOutputs
from backstay.graph.snapshots import GraphSnapshot
from backstay.operations.backup import scarce_room
from backstay.repository.snapshots.store import Manifest, SnapshotStore
from tests.cli.conftest import Account


def node(name: str, output: bytes, *deps: str, **metadata: object) -> dict[str, Any]:
    """A completed node, as a document has it."""
    digest = f"sha256:{sha256(output).hexdigest()}"
    return {"id": name, "hash": digest, "deps": [*deps], "status": "completed", "metadata": {"path": name, **metadata}}


class Pipeline:
    """Two files, of which the second is a copy of the first, twice."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.files, self.document = account.root / "files", account.root / "graph.json"
        self.files.mkdir()
        self.write(b"one\n")
        account.run("init")

    def write(self, first: bytes) -> None:
        """Make both files, and the document of their graph."""
        program = "import sys; open(sys.argv[1], 'wb').write(2 * open(sys.argv[2], 'rb').read())"
        command = ["{python}", "-c", program, "{output}", "{input:raw}"]
        (self.files / "raw").write_bytes(first)
        (self.files / "twice").write_bytes(2 * first)
        nodes = [node("raw", first), node("twice", 2 * first, "raw", command=command)]
        self.document.write_text(json.dumps({"name": "etl", "nodes": nodes}))

    def snapshot(self, *argv: object) -> dict[str, Any]:
        found: dict[str, Any] = self.account.json("graph", "snapshot", self.document, "--files", self.files, *argv)
        return found


@pytest.fixture
def pipeline(account: Account) -> Pipeline:
    return Pipeline(account)


def test_a_graph_goes_in_and_lost_outputs_come_back(pipeline: Pipeline) -> None:
    run, read = pipeline.account.run, pipeline.account.json
    made = pipeline.snapshot("-d", "first", "-t", "x")
    assert (made["graph"], made["nodes"], made["values_stored"], made["state"]) == ("etl", 2, 2, "accepted")
    assert [told["id"] for told in read("graph", "list")] == [made["id"]]
    assert "first" in run("graph", "list").out
    assert "2 completed" in run("graph", "show", "etl", "--nodes").out
    (pipeline.files / "twice").write_bytes(b"damaged")
    plan = read("graph", "restore", "--to", pipeline.files, "--dry-run")
    assert plan["counts"] == {"reuse": 1, "restore": 1}
    assert (pipeline.files / "twice").read_bytes() == b"damaged"
    assert "restored" in run("graph", "restore", "--to", pipeline.files).out
    assert (pipeline.files / "twice").read_bytes() == b"one\none\n"
    assert read("graph", "verify", "--read-data")["values_read"] == 2


def test_files_are_not_put_into_the_repository_by_whatever_way_there(pipeline: Pipeline) -> None:
    account, repository = pipeline.account, pipeline.account.repository
    inside = repository.relative_to(account.root) / "repo.json"
    (pipeline.files / inside).parent.mkdir(parents=True)
    (pipeline.files / inside).write_bytes(b"one\n")
    pipeline.document.write_text(json.dumps({"name": "etl", "nodes": [node(str(inside), b"one\n")]}))
    pipeline.snapshot()
    (account.root / "link").symlink_to(repository)
    before = sorted(repository.rglob("*")), (repository / "repo.json").read_bytes()
    for place in (repository, repository / "packs/new", account.root / "link", account.root):
        for more in ((), ("--dry-run",)):
            refused = account.run("graph", "restore", "--to", place, *more, status=2)
            assert "lies inside the repository" in refused.err
    assert (sorted(repository.rglob("*")), (repository / "repo.json").read_bytes()) == before
    assert not (account.root / ".backstay").exists()
    account.run("graph", "restore", "--to", account.root / "other")
    assert (account.root / "other" / inside).read_bytes() == b"one\n"


def test_commands_run_only_when_asked_to(pipeline: Pipeline) -> None:
    made = pipeline.snapshot()
    value = json.loads(pipeline.document.read_text())["nodes"][1]["hash"]
    pipeline.account.run("cas", "delete", "--force", value)
    assert value in pipeline.account.run("graph", "verify", status=13).err
    report = pipeline.account.json("graph", "restore", made["id"], status=1)
    assert [(one["id"], one["action"]) for one in report["nodes"]] == [("raw", "reused"), ("twice", "blocked")]
    report = pipeline.account.json("graph", "restore", made["id"], "--run-commands")
    assert report["counts"] == {"reused": 1, "recomputed": 1}
    assert pipeline.account.run("graph", "verify").status == 0


def test_a_directory_of_files_that_is_not_there_is_told_also_where_no_value_is_missing(pipeline: Pipeline) -> None:
    pipeline.snapshot()
    for wrong in (pipeline.files.with_name("typo"), pipeline.files / "raw"):
        told = pipeline.account.run("graph", "snapshot", pipeline.document, "--files", wrong, status=1)
        assert f"there is no directory {wrong}" in told.err


def test_files_that_are_not_what_the_graph_says_are_not_stored(pipeline: Pipeline) -> None:
    (pipeline.files / "raw").write_bytes(b"other")
    told = pipeline.account.run("graph", "snapshot", pipeline.document, "--files", pipeline.files, status=1)
    assert "raw" in told.err
    assert pipeline.account.json("cas", "list") == []
    assert pipeline.account.json("graph", "list") == []


def test_differences_are_told_by_node(pipeline: Pipeline) -> None:
    first = pipeline.snapshot()["id"]
    pipeline.write(b"two\n")
    second = pipeline.snapshot()["id"]
    told = pipeline.account.run("graph", "diff", first, second).out
    assert "M  raw  hash" in told
    assert "2 nodes differ, 0 do not" in told


def test_a_quorum_decides(pipeline: Pipeline) -> None:
    account, root = pipeline.account, pipeline.account.root
    keys = {}
    for name in ("anna", "bert", "carl"):
        keys[name] = account.json("graph", "validator", name, "--key-file", root / name)
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o600
    rows = [{"name": name, "public_key": keys[name]["public_key"]} for name in ("anna", "bert")]
    policy = root / "quorum.yaml"
    policy.write_text(json.dumps({"required": 2, "validators": rows}))
    made = pipeline.snapshot("--policy", policy)
    assert (made["state"], made["missing"]) == ("pending", ["anna", "bert"])
    environ = {"BACKSTAY_QUORUM_POLICY": str(policy)}
    told = account.run("graph", "attest", "etl", "--key-file", root / "anna", env=environ)
    assert "bert" in told.out
    assert account.run("graph", "attest", "etl", "--key-file", root / "carl", env=environ, status=2).err
    assert "bert" in account.run("graph", "restore", env=environ, status=16).err
    assert account.json("graph", "restore", "--accept-pending", env=environ)["ok"]
    assert account.json("graph", "attest", "etl", "--key-file", root / "bert", env=environ)["state"] == "accepted"
    assert account.json("graph", "restore", env=environ)["ok"]
    assert account.json("graph", "list", "--policy", policy)[0]["validated_by"] == ["anna", "bert"]


def test_a_key_that_others_can_read_is_refused(pipeline: Pipeline) -> None:
    account = pipeline.account
    account.run("graph", "validator", "anna", "--key-file", account.root / "anna")
    (account.root / "anna").chmod(0o640)
    pipeline.snapshot()
    assert "chmod 600" in account.run("graph", "attest", "etl", "--key-file", account.root / "anna", status=2).err
    words = (account.root / "anna").read_text().strip().rpartition(":")[2]
    told = account.run("-v", "graph", "attest", "etl", "--key-file", account.root / "anna", status=2)
    assert words not in told.out + told.err
    account.run("graph", "validator", "again", "--key-file", account.root / "anna", status=2)


def test_deleted_graphs_leave_their_values_to_a_collection(pipeline: Pipeline) -> None:
    account = pipeline.account
    first = pipeline.snapshot()["id"]
    pipeline.write(b"two\n")
    pipeline.snapshot()
    account.run("graph", "delete", first)
    assert len(account.json("cas", "list")) == 4
    assert len(account.json("graph", "gc", "--dry-run")["values"]) == 2
    done = account.json("graph", "gc")
    assert (done["snapshots"], len(done["values"])) == ([first], 2)
    assert len(account.json("cas", "list")) == 2
    pipeline.write(b"three\n")
    pipeline.snapshot()
    assert len(account.json("graph", "gc", "--keep-last", 1)["values"]) == 2


def test_plain_files_go_out_and_in(pipeline: Pipeline, tmp_path: Path) -> None:
    account = pipeline.account
    made = pipeline.snapshot()
    account.run("graph", "export", "etl", tmp_path / "backups")
    assert len([*(tmp_path / "backups/blobs").iterdir()]) == 2
    assert account.json("graph", "import", tmp_path / "backups") == {"imported": []}
    there = {"BACKSTAY_REPO": str(account.root / "other"), "BACKSTAY_PASSWORD": "x"}
    account.run("init", env=there)
    (imported,) = account.json("graph", "import", tmp_path / "backups", env=there)["imported"]
    assert account.json("graph", "restore", imported, env=there)["ok"]
    assert imported != made["id"]


def test_it_must_be_said_which_of_several_graphs_is_meant(pipeline: Pipeline) -> None:
    account = pipeline.account
    assert "graph snapshot" in account.run("graph", "restore", status=1).err
    pipeline.snapshot()
    text = pipeline.document.read_text()
    pipeline.document.write_text(text.replace('"etl"', '"other"'))
    pipeline.snapshot()
    assert "etl, other" in account.run("graph", "restore", status=2).err
    assert account.json("graph", "restore", "other")["ok"]


@pytest.mark.parametrize("text", ["", "{", '{"nodes": [{"id": "../x"}]}', '{"nodes": [{"id": "a", "deps": ["a"]}]}'])
def test_documents_that_are_no_graph_are_refused(account: Account, text: str) -> None:
    account.run("init")
    (account.root / "graph.json").write_text(text)
    told = account.run("graph", "snapshot", account.root / "graph.json", status=1)
    assert "Traceback" not in told.err
    account.run("graph", "snapshot", account.root / "none.json", status=2)


def test_a_module_that_cannot_be_imported_is_told(pipeline: Pipeline) -> None:
    pipeline.snapshot()
    (pipeline.account.root / "broken_module.py").write_text("1 / 0")
    told = pipeline.account.run(
        "graph", "restore", "--path", pipeline.account.root, "--import", "broken_module", status=2
    )
    assert "ZeroDivisionError" in told.err


def test_a_description_that_is_no_text_is_refused(account: Account) -> None:
    pipeline = Pipeline(account)
    told = account.run("graph", "snapshot", pipeline.document, "--files", pipeline.files, "-d", "caf\udce9", status=2)
    assert "not valid UTF-8" in told.err
    assert account.json("graph", "list") == []


def test_an_interrupt_in_the_commit_is_too_late_also_where_room_is_scarce(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = SnapshotStore.commit

    def interrupted(store: SnapshotStore, manifest: Manifest) -> None:
        commit(store, manifest)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SnapshotStore, "commit", interrupted)
    monkeypatch.setattr(scarce_room, "is_scarce", lambda _: True)
    made = pipeline.snapshot()
    monkeypatch.undo()
    assert [each["id"] for each in pipeline.account.json("graph", "list")] == [made["id"]]


def test_an_interrupt_after_the_commit_is_too_late(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    told = cli_graph.summary_of

    def interrupted(made: GraphSnapshot) -> dict[str, object]:
        signal.raise_signal(signal.SIGINT)
        return told(made)

    monkeypatch.setattr(cli_graph, "summary_of", interrupted)
    made = pipeline.snapshot()
    monkeypatch.undo()
    assert [each["id"] for each in pipeline.account.json("graph", "list")] == [made["id"]]


def test_a_signal_that_finds_the_files_in_place_is_too_late(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipeline.snapshot()
    commit = FileOutputs.commit

    def interrupted(outputs: FileOutputs) -> None:
        commit(outputs)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(FileOutputs, "commit", interrupted)
    told = pipeline.account.json("graph", "restore", "--to", tmp_path / "out")
    assert told["ok"]

"""Snapshots as plain files, written and read again, and what is refused of files that came from elsewhere."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.core.syncfs import sync_filesystem
from backstay.errors import (
    BackstayError,
    CycleFound,
    GraphError,
    InsufficientSpace,
    InvalidDocument,
    MissingDependency,
    NotFound,
    OutputConflict,
    OutputMismatch,
    OutputMissing,
    RepositoryBusy,
)
from backstay.graph import layout, layout_directory
from backstay.graph.layout import Carried, Layout, read_layout, write_layout
from backstay.graph.layout_directory import LayoutDirectory
from backstay.graph.layout_index import LayoutSnapshot, read_index, write_index
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.repository import Repository
from backstay.testing import MemoryStorage
from backstay.trust.secrets import Secret
from tests.graph.memory_values import MemoryValues
from tests.graph.random_graphs import WHEN, graphs

ONE, TWO, OUTSIDE = b'{"n":1}', b"no JSON \0\xff", b"from outside"


def key(content: bytes) -> str:
    return "sha256:" + sha256(content).hexdigest()


def blob(root: Path, content: bytes) -> Path:
    return root / "blobs" / f"{sha256(content).hexdigest()}.json"


def snapshot(name: str = "s1", **changes: Any) -> LayoutSnapshot:
    graph = MetadataGraph("etl", timestamp=WHEN, validated_by=("v0",))
    graph.add(Node(id="one", hash=key(ONE), status="completed", metadata=NodeMetadata(size=len(ONE))))
    taken = NodeMetadata(input_hashes=(key(ONE), key(OUTSIDE)))
    graph.add(Node(id="two", hash=key(TWO), deps=("one",), status="completed", metadata=taken))
    graph.add(Node(id="three", deps=("two",)))
    given: dict[str, Any] = {"id": name, "time": WHEN, "graph": graph, "description": "nightly", "tags": ("a", "b")}
    return LayoutSnapshot(**(given | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A layout with one snapshot and its three values."""
    write_layout(tmp_path / ".backups", [snapshot()], MemoryValues(ONE, TWO, OUTSIDE))
    return tmp_path / ".backups"


def edited(root: Path, change: Callable[[Any], object]) -> None:
    """Change what snapshots.json says of its first snapshot."""
    path = root / "metadata" / "snapshots.json"
    document = json.loads(path.read_text())
    change(document[0])
    path.write_text(json.dumps(document))


def refused(root: Path, told: str, *, error: type[BackstayError] = InvalidDocument) -> None:
    """The layout is refused, nothing of it is stored, and the error is one that a person can read."""
    into = MemoryValues()
    with pytest.raises(error, match=told) as caught, read_layout(root) as read:
        read.store_values(into)
    assert into.held == {}
    assert len(str(caught.value)) < 1000
    assert caught.value.hint


def test_the_files_are_those_that_other_programs_expect(root: Path) -> None:
    assert sorted(path.name for path in (root / "blobs").iterdir()) == sorted(
        blob(root, content).name for content in (ONE, TWO, OUTSIDE)
    )
    assert blob(root, TWO).read_bytes() == TWO
    assert sorted(path.name for path in (root / "metadata").iterdir()) == ["snapshots.json"]
    (written,) = json.loads((root / "metadata" / "snapshots.json").read_text())
    dag = written.pop("dag")
    assert written == {
        "id": "s1",
        "description": "nightly",
        "tags": ["a", "b"],
        "timestamp": "2026-11-20T12:00:00Z",
        "state": "pending",
    }
    assert dag["edges"] == [{"from": "one", "to": "two"}, {"from": "two", "to": "three"}]
    assert dag["validatedBy"] == ["v0"]
    assert dag["nodes"]["three"] == {
        "id": "three",
        "hash": "",
        "deps": ["two"],
        "metadata": {
            "agentRole": "",
            "capability": "",
            "inputHashes": [],
            "outputHashes": [],
            "computationTime": 0.0,
            "memoryUsage": 0,
            "validationResult": None,
            "designIntent": "",
            "userRequirement": "",
        },
        "status": "pending",
        "agentId": "",
        "traceId": "",
    }
    assert dag["nodes"]["one"]["metadata"]["size"] == len(ONE)


def test_what_was_written_is_read(root: Path) -> None:
    into = MemoryValues()
    with read_layout(root) as read:
        assert read.snapshots == (snapshot(),)
        assert read.store_values(into) == Carried(values=3, bytes=len(ONE + TWO + OUTSIDE))
    assert sorted(into.held.values()) == sorted((ONE, TWO, OUTSIDE))
    assert into.batches == 1


@pytest.mark.property
@given(st.lists(graphs(), max_size=3))
@settings(max_examples=15, deadline=None)
def test_any_graphs_come_back_from_their_index(some: list[MetadataGraph]) -> None:
    snapshots = tuple(snapshot(f"s{at}", graph=graph, state="accepted") for at, graph in enumerate(some))
    assert read_index(b"".join(write_index(snapshots))) == snapshots


@pytest.mark.property
@given(graphs(sizes=False))
@settings(max_examples=8, deadline=None)
def test_values_of_any_graph_come_back(graph: MetadataGraph) -> None:
    values = MemoryValues(*(str(number).encode() for number in range(31)))
    with tempfile.TemporaryDirectory() as directory:
        carried = write_layout(Path(directory), [snapshot(graph=graph)], values)
        back = MemoryValues()
        with read_layout(Path(directory)) as read:
            assert read.store_values(back) == carried
    wanted = {made for node in graph for made in (*node.values, *node.metadata.input_hashes)}
    assert back.held == {made: values.held[made] for made in wanted}


def test_values_come_from_one_repository_into_another(tmp_path: Path) -> None:
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        values = ContentAddressableStorage(repository)
        with values.batch() as batch:
            for content in (ONE, TWO, OUTSIDE):
                batch.store(content)
        write_layout(tmp_path, [snapshot()], values)
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        values = ContentAddressableStorage(repository)
        with read_layout(tmp_path) as read:
            assert read.store_values(values).values == 3
        assert [values.retrieve(key(content)) for content in (ONE, TWO, OUTSIDE)] == [ONE, TWO, OUTSIDE]
        blob(tmp_path, TWO).write_bytes(b"other")
        values.delete(key(TWO))
        values.delete(key(ONE))
        with read_layout(tmp_path) as read, pytest.raises(OutputMismatch):
            read.store_values(values)
        assert list(values.list()) == [key(OUTSIDE)]


def test_a_second_snapshot_comes_beside_the_first_and_writes_only_what_is_new(root: Path) -> None:
    written = blob(root, ONE).stat().st_ino
    carried = write_layout(root, [snapshot("s2")], MemoryValues(ONE, TWO, OUTSIDE))
    assert carried == Carried()
    assert blob(root, ONE).stat().st_ino == written
    changed = snapshot("s1", description="changed")
    write_layout(root, [changed], MemoryValues(ONE, TWO, OUTSIDE))
    with read_layout(root) as read:
        assert read.snapshots == (changed, snapshot("s2"))


def test_values_that_are_stored_already_are_not_read(root: Path) -> None:
    blob(root, TWO).unlink()
    with read_layout(root) as read:
        assert read.store_values(MemoryValues(TWO)).values == 2


def test_inputs_from_outside_may_be_missing_and_outputs_may_not(tmp_path: Path, root: Path) -> None:
    blob(root, OUTSIDE).unlink()
    with read_layout(root) as read:
        assert read.store_values(MemoryValues()).missing == ()
    blob(root, TWO).unlink()
    refused(root, "node two made is not there", error=OutputMissing)
    with read_layout(root) as read:
        assert read.store_values(MemoryValues(), complete=False) == Carried(
            values=1, bytes=len(ONE), missing=(key(TWO),)
        )
    with pytest.raises(OutputMissing, match="node two"):
        write_layout(tmp_path / "new", [snapshot()], MemoryValues(ONE))
    assert not (tmp_path / "new" / "metadata" / "snapshots.json").exists()
    assert write_layout(tmp_path / "new", [snapshot()], MemoryValues(ONE), complete=False).missing == (key(TWO),)


def test_a_damaged_blob_is_written_anew(root: Path) -> None:
    blob(root, ONE).write_bytes(b"damaged")
    assert write_layout(root, [snapshot("s2")], MemoryValues(ONE, TWO, OUTSIDE)).values == 1
    assert blob(root, ONE).read_bytes() == ONE


def test_a_store_that_gives_other_bytes_spoils_nothing(tmp_path: Path) -> None:
    values = MemoryValues(TWO, OUTSIDE)
    values.held[key(ONE)] = b"other"
    with pytest.raises(OutputMismatch, match="not what was recorded"):
        write_layout(tmp_path, [snapshot()], values)
    assert list((tmp_path / "blobs").iterdir()) == []
    assert list((tmp_path / "metadata").iterdir()) == []


def test_a_graph_that_is_not_whole_is_not_written(tmp_path: Path) -> None:
    graph = MetadataGraph()
    graph.add(Node(id="a", deps=("a",)))
    with pytest.raises(CycleFound):
        write_layout(tmp_path / "new", [snapshot(graph=graph)], MemoryValues())
    assert not (tmp_path / "new").exists()


def test_two_programs_do_not_write_at_once(root: Path) -> None:
    with LayoutDirectory.create(root), pytest.raises(RepositoryBusy, match="another program"):
        write_layout(root, [snapshot("s2")], MemoryValues(ONE, TWO, OUTSIDE))


@pytest.mark.crash
@pytest.mark.parametrize("stop", range(12))
def test_a_writer_that_is_stopped_leaves_the_old_snapshots_or_the_new(
    root: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each call that makes something last: a reader finds something whole, the next writer ends it."""
    larger = MetadataGraph("etl", timestamp=WHEN)
    larger.add(Node(id="new", hash=key(b"new"), status="completed"))
    second = snapshot("s2", graph=larger)
    values = MemoryValues(ONE, TWO, OUTSIDE, b"new")
    calls = iter(range(100))

    class Stopped(BaseException):
        pass

    def seam(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == stop:
                raise Stopped
            return real(*args, **kwargs)

        return call

    for name in ("rename", "unlink", "fsync"):
        monkeypatch.setattr(os, name, seam(name, getattr(os, name)))
    monkeypatch.setattr(layout_directory, "sync_filesystem", seam("syncfs", sync_filesystem))
    try:
        write_layout(root, [second], values)
        finished = True
    except Stopped:
        finished = False
    monkeypatch.undo()
    with read_layout(root) as read:
        into = MemoryValues()
        read.store_values(into)  # nothing that a snapshot names is missing or torn
        assert read.snapshots in ((snapshot(),), (snapshot(), second))
        assert not finished or read.snapshots == (snapshot(), second)
    write_layout(root, [second], values)
    with read_layout(root) as read:
        assert read.snapshots == (snapshot(), second)
    assert not list(root.rglob(".part"))


def test_blobs_are_durable_before_the_index_names_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    rename = os.rename

    def renamed(old: str, new: str, **where: Any) -> None:
        done.append(new)
        rename(old, new, **where)

    def synced(fd: int) -> None:
        done.append("sync")
        sync_filesystem(fd)

    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(layout_directory, "sync_filesystem", synced)
    blob(root, ONE).unlink()
    write_layout(root, [snapshot()], MemoryValues(ONE, TWO, OUTSIDE))
    assert done == [blob(root, ONE).name, "sync", "snapshots.json"]


def test_a_full_disk_is_told_and_leaves_what_was_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any, **_where: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(InsufficientSpace):
        write_layout(root, [snapshot("s2")], MemoryValues(ONE, TWO, OUTSIDE))
    monkeypatch.undo()
    with read_layout(root) as read:
        assert read.snapshots == (snapshot(),)
    assert not list(root.rglob(".part"))


def test_an_index_that_would_be_too_large_to_read_is_not_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_DOCUMENT", (root / "metadata" / "snapshots.json").stat().st_size + 100)
    with pytest.raises(BackstayError, match="no room"):
        write_layout(root, [snapshot("s2")], MemoryValues(ONE, TWO, OUTSIDE))
    with read_layout(root) as read:
        assert read.snapshots == (snapshot(),)


@pytest.mark.parametrize("name", ["../s1", "a/b", ".", "", "s1\n", "s\0", "n" * 65])
def test_crafted_names_of_snapshots(root: Path, name: str) -> None:
    edited(root, lambda one: one.update(id=name))
    refused(root, "id: ")


@pytest.mark.parametrize("name", ["../two", "/two", "a/../two", "two\n", "two\0", "n" * 256])
def test_crafted_names_of_nodes(root: Path, name: str) -> None:
    def rename(one: Any) -> None:
        one["dag"]["nodes"][name] = one["dag"]["nodes"].pop("two") | {"id": name}

    edited(root, rename)
    refused(root, "dag.nodes")


@pytest.mark.parametrize(
    ("change", "told", "error"),
    [
        (lambda one: one.update(unknown=1), "unknown: Extra", InvalidDocument),
        (lambda one: one.update(tags=["t"] * 1001), "tags", InvalidDocument),
        (lambda one: one.update(state="trusted"), "state", InvalidDocument),
        (lambda one: one.update(timestamp="yesterday"), "timestamp", InvalidDocument),
        (lambda one: one.update(description="d" * 65_537), "description", InvalidDocument),
        (lambda one: one["dag"].update(name="../etl"), "dag.name", InvalidDocument),
        (lambda one: one["dag"]["edges"].pop(), "edges", InvalidDocument),
        (lambda one: one["dag"]["edges"].append({"from": "three", "to": "one"}), "edges", InvalidDocument),
        (lambda one: one["dag"]["edges"].append({"from": "../x", "to": "one"}), "dag.edges.2.from", InvalidDocument),
        (lambda one: one["dag"]["nodes"]["one"].update(id="uno"), "node uno stands under one", InvalidDocument),
        (lambda one: one["dag"]["nodes"]["one"].update(hash="../../etc/passwd"), "hash", InvalidDocument),
        (lambda one: one["dag"]["nodes"]["one"].update(deps=["three"]), "one → three → two → one", CycleFound),
        (lambda one: one["dag"]["nodes"].pop("one"), "one .needed by two", MissingDependency),
        (lambda one: one["dag"]["nodes"]["one"]["metadata"].update(path="../../x"), "path", InvalidDocument),
        (
            lambda one: [node["metadata"].update(path="same") for node in one["dag"]["nodes"].values()],
            "path same",
            OutputConflict,
        ),
        (lambda one: one["dag"]["nodes"]["one"]["metadata"].update(size=8), "7 B, not 8 B", OutputMismatch),
    ],
)
def test_crafted_snapshots(root: Path, change: Callable[[Any], object], told: str, error: type[GraphError]) -> None:
    edited(root, change)
    refused(root, told, error=error)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b"", "Expecting value"),
        (b"{}", "valid array"),
        (b"[1]", "0: "),
        (b"\xff\xfe\xfd", "decode"),
        (b"[" * 200_000, "nested too deeply"),
        (b'[{"id":' + b'{"a":' * 200_000, "nested too deeply"),
        (b'[{"id": NaN}]', "NaN"),
        (b'[{"id": 1' + b"0" * 5000 + b"}]", "digits"),
        (b'[{"id": "a", "id": "b"}]', "'id' stands twice"),
    ],
)
def test_crafted_indexes(root: Path, document: bytes, told: str) -> None:
    (root / "metadata" / "snapshots.json").write_bytes(document)
    refused(root, told)
    with pytest.raises(InvalidDocument):  # nor is it written over
        write_layout(root, [snapshot("s2")], MemoryValues(ONE, TWO, OUTSIDE))
    assert (root / "metadata" / "snapshots.json").read_bytes() == document


def test_two_snapshots_of_one_id_and_two_nodes_of_one_key_are_refused(root: Path) -> None:
    path = root / "metadata" / "snapshots.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) * 2))
    refused(root, "two of its snapshots")
    path.write_text(text.replace('"three":{', '"one":{'))
    refused(root, "'one' stands twice")


def test_an_index_too_large_is_not_read(root: Path) -> None:
    with (root / "metadata" / "snapshots.json").open("r+b") as file:
        file.truncate(2 << 30)  # a hole: it takes no room
    refused(root, "too large")


def test_a_blob_with_other_bytes_is_refused(root: Path) -> None:
    blob(root, TWO).write_bytes(TWO + b"!")
    refused(root, "id sha256:", error=OutputMismatch)


def test_a_large_blob_with_other_bytes_is_refused_before_any_of_it_is_given(root: Path) -> None:
    with blob(root, TWO).open("wb") as file:
        file.truncate(3 << 20)
    with LayoutDirectory.open(root) as directory, pytest.raises(OutputMismatch), directory.blob(key(TWO)):
        pytest.fail("bytes were given")


def test_a_large_blob_comes_in_pieces(tmp_path: Path) -> None:
    large = os.urandom(1 << 20) * 3
    graph = MetadataGraph()
    graph.add(Node(id="large", hash=key(large), status="completed"))
    write_layout(tmp_path, [snapshot(graph=graph)], MemoryValues(large))
    with LayoutDirectory.open(tmp_path) as directory, directory.blob(key(large)) as pieces:
        assert [len(piece) for piece in pieces] == [1 << 20] * 3


def _link(path: Path) -> None:
    moved = path.rename(path.with_name("moved"))
    path.symlink_to(moved.absolute(), target_is_directory=moved.is_dir())


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("replace", [_link, _pipe, _directory])
@pytest.mark.parametrize("what", ["blob", "index"])
def test_only_plain_files_are_read(root: Path, replace: Callable[[Path], None], what: str) -> None:
    replace(blob(root, TWO) if what == "blob" else root / "metadata" / "snapshots.json")
    refused(root, "no plain file")
    with pytest.raises(InvalidDocument, match="no plain file"):
        write_layout(root, [snapshot("s2")], MemoryValues(ONE, TWO, OUTSIDE))


@pytest.mark.parametrize("name", ["blobs", "metadata"])
def test_directories_that_are_links_are_not_entered(root: Path, name: str) -> None:
    _link(root / name)
    refused(root, f"{name} is no directory")
    with pytest.raises(InvalidDocument, match="no directory"):
        write_layout(root, [snapshot("s2")], MemoryValues(ONE, TWO, OUTSIDE))


@pytest.mark.parametrize("missing", ["", "blobs", "metadata", "metadata/snapshots.json"])
def test_a_directory_that_is_no_layout_is_told(root: Path, missing: str) -> None:
    (root / missing).rename(root.parent / "gone")
    refused(root, "no graph layout", error=NotFound)


def test_an_error_of_the_caller_stays_its_own(root: Path) -> None:
    def use(read: Layout) -> Iterator[bytes]:
        raise FileNotFoundError("mine")

    with pytest.raises(FileNotFoundError, match="mine"), read_layout(root) as read:
        use(read)

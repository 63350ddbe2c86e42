"""The golden repository with values, broken in every way: the independent reader and the program both notice."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backstay.errors import BackstayError, CorruptedBackup
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.format import RecordKind, values_name
from backstay.repository.logs.value_entries import MAX_METADATA, SMALL_VALUE, Checkpoint, InlineValue, ValuesEntry
from backstay.repository.repository import Repository
from backstay.trust.secrets import Secret
from tests.formats.forge import Objects, environment, storage_of
from tests.formats.make_golden import PASSPHRASE, stored_objects
from tests.formats.make_golden_values import ARCHIVE, EXPECTED, build
from tests.formats.test_golden import unpacked
from tools import dumb_verifier

SECRET = Secret.passphrase(PASSPHRASE)
GOLDEN = stored_objects(ARCHIVE)
FACTS: dict[str, Any] = msgspec.json.decode(EXPECTED.read_bytes())
FIRST, LAST = 7, 14  # entries of the golden log, the first of which is its checkpoint


def opened(objects: Objects) -> Repository:
    return Repository.open(storage_of(objects), SECRET, environment=environment())


def verdict(objects: Objects, place: Path, *options: str) -> int:
    secret = place / "secret"
    secret.write_text(PASSPHRASE)
    return dumb_verifier.main([str(unpacked(objects, place / "repository")), "--password-file", str(secret), *options])


def test_today_s_program_writes_the_same() -> None:
    made = build()
    if made.expected["made with zstd"] == FACTS["made with zstd"]:
        assert [name for name in GOLDEN | made.objects if made.objects.get(name) != GOLDEN.get(name)] == []
    assert made.expected["values"] == FACTS["values"]


def test_the_program_reads_what_was_written_then() -> None:
    with opened(GOLDEN) as repository:
        cas = ContentAddressableStorage(repository)
        assert [key.removeprefix("sha256:") for key in cas.list()] == FACTS["values"]
        for key in FACTS["values"]:
            assert sha256(cas.retrieve(key)).hexdigest() == key
        assert cas.info(sha256(b"small").hexdigest()).metadata == {"number": 1, "text": "grüß dich"}
        assert run_verify(repository, options=VerifyOptions(read_data=1)).findings == ()
        assert [manifest.id for manifest in repository.snapshots.shown()] == [FACTS["graph"]]


def test_the_independent_reader_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(GOLDEN, tmp_path, "--values", str(tmp_path / "values")) == 0, capsys.readouterr().out
    restored = {path.name: path.read_bytes() for path in (tmp_path / "values").iterdir()}
    assert sorted(restored) == FACTS["values"]
    assert all(sha256(data).hexdigest() == name for name, data in restored.items())


# -- damage


def sealed(entry: ValuesEntry) -> Callable[[Objects], Objects]:
    """Somebody with the keys put this entry in place of another, or behind the last."""

    def change(objects: Objects) -> Objects:
        with opened(objects) as repository:
            return {**objects, values_name(entry.number): repository.keyring.seal(RecordKind.VALUES, entry)}

    return change


def entry(number: int = LAST + 1, **fields: Any) -> ValuesEntry:
    return ValuesEntry(number, bytes(16), 0, **fields)


def value(data: bytes = b"x", **changes: Any) -> InlineValue:
    made = InlineValue(sha256(data).digest(), len(data), 0, None, data)
    return msgspec.structs.replace(made, **changes)


def without(*numbers: int) -> Callable[[Objects], Objects]:
    names = {values_name(number) for number in numbers}
    return lambda objects: {name: data for name, data in objects.items() if name not in names}


def moved(objects: Objects) -> Objects:
    return {**objects, values_name(LAST + 1): objects[values_name(LAST)]}


def flipped(objects: Objects) -> Objects:
    data = bytearray(objects[values_name(LAST - 1)])
    data[-1] ^= 1
    return {**objects, values_name(LAST - 1): bytes(data)}


ULID = "0" * 26
DAMAGES: dict[str, Callable[[Objects], Objects]] = {
    "a gap": without(FIRST + 2),
    "the checkpoint is gone": without(FIRST),
    "an entry under another number": moved,
    "a bit flipped": flipped,
    "a foreign name": lambda objects: {**objects, "values/one": objects[values_name(LAST)]},
    "a number with too many zeros": lambda objects: {**objects, f"values/{LAST:010d}": objects[values_name(LAST)]},
    "another number inside": lambda objects: {
        **objects,
        values_name(LAST + 1): sealed(entry(LAST + 2))(objects)[values_name(LAST + 2)],
    },
    "bytes that do not match the id": sealed(entry(adds=(value(sha256=bytes(32)),))),
    "an absurd size": sealed(entry(adds=(value(size=1 << 60),))),
    "a value too large": sealed(entry(adds=(value(bytes(SMALL_VALUE + 1)),))),
    "metadata too large": sealed(entry(adds=(value(metadata=bytes(MAX_METADATA + 1)),))),
    "a digest too short": sealed(entry(removes=(b"short",))),
    "a short nonce": sealed(msgspec.structs.replace(entry(), nonce=b"")),
    "an impossible snapshot": sealed(entry(snapshot="../etc")),
    "an impossible intent": sealed(entry(intent="x")),
    "a checkpoint of the future": sealed(entry(checkpoint=Checkpoint(ULID, LAST + 1, (), ()))),
    "a checkpoint of nothing": sealed(entry(checkpoint=Checkpoint(ULID, 0, (), ()))),
    "a checkpoint whose snapshot is missing": sealed(entry(checkpoint=Checkpoint(ULID, LAST, (), ()))),
    "a snapshot that is missing": sealed(entry(snapshot=ULID)),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_noticed_by_both(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = DAMAGES[name](dict(GOLDEN))
    assert verdict(objects, tmp_path) == 1, capsys.readouterr().out
    with opened(objects) as repository:
        report = run_verify(repository)
        assert [finding for finding in report.findings if "values" in finding.subject], report.findings
        _nothing_is_lost_silently(ContentAddressableStorage(repository))


def _nothing_is_lost_silently(cas: ContentAddressableStorage) -> None:
    """A value is there, with its bytes, or an error says why it cannot be told; it is never just absent."""
    for key in FACTS["values"][::40]:
        try:
            assert sha256(cas.retrieve(key)).hexdigest() == key
        except CorruptedBackup:
            continue


def test_of_two_checkpoints_the_one_that_covers_more_counts(tmp_path: Path) -> None:
    with opened(GOLDEN) as repository:
        checkpoint = repository.values_log.read(FIRST).checkpoint
    assert checkpoint is not None
    objects = sealed(entry(checkpoint=checkpoint))(dict(GOLDEN))  # as much as the first one: it does not count
    assert verdict(objects, tmp_path) == 0
    with opened(objects) as repository:
        assert len([*ContentAddressableStorage(repository).list()]) == len(FACTS["values"])
        assert repository.values_log.view.covers == checkpoint.covers


def test_a_damaged_log_refuses_removals_and_goes_on_where_its_loss_is_accepted() -> None:
    objects = without(LAST)(without(LAST - 4)(dict(GOLDEN)))
    with opened(objects) as repository:
        cas = ContentAddressableStorage(repository)
        stored = cas.store(b"still possible")
        for refused in (lambda: cas.delete(stored), cas.fold, lambda: [*cas.list()]):
            with pytest.raises(CorruptedBackup):
                refused()
        with pytest.raises(CorruptedBackup):  # it may be in the entry that is missing
            cas.exists(sha256(b"never stored").hexdigest())
        assert cas.fold(accept_loss=True) is not None
        assert not cas.exists(sha256(b"never stored").hexdigest())
        assert cas.exists(stored)
        assert cas.delete(stored)


def test_a_log_that_became_shorter_is_not_believed() -> None:
    storage = storage_of(dict(GOLDEN))
    with Repository.open(storage, SECRET, environment=environment()) as repository:
        cas = ContentAddressableStorage(repository)
        assert [*cas.list()]
        for number in range(FIRST, LAST + 1):
            storage.delete(values_name(number))
        with pytest.raises(BackstayError, match="shorter"):
            cas.exists("0" * 64)

"""Key slots: who opens a repository, what is shown of slots that are damaged or foreign, and what cannot be removed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator

import pytest

from backstay.codec.digest import sha256
from backstay.errors import CorruptedBackup, InvalidRequest, NotFound, ObjectUnreadable, StorageRefused, WrongKey
from backstay.operations.verify.run import run_verify
from backstay.repository.format import RecordKind, slot_name, slot_removal_name
from backstay.repository.keys.slots import SlotRemoval, SlotStore, _chosen
from backstay.repository.repository import Environment, Repository
from backstay.storage.backend import Buffer, StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.storage.mirrored import Mirrored
from backstay.storage.wrapper import Wrapper
from backstay.testing import FakeClock
from backstay.trust.secrets import Secret

FIRST = Secret("keyfile", bytes(range(32)))
SECOND = Secret("keyfile", bytes(range(1, 33)))
CREATED = "2030-01-02T03:04:05+00:00"


@pytest.fixture
def store() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def repository(store: MemoryStorage) -> Iterator[Repository]:
    with Repository.create(store, FIRST, environment=Environment(clock=FakeClock())) as repository:
        yield repository


def add(repository: Repository, secret: Secret, note: str = "") -> str:
    return repository.slots.add(secret, repository.header_digest, note=note, created=CREATED)


def first_slot(repository: Repository) -> str:
    found = repository.slots.opened_by(FIRST)
    assert found is not None
    return found


def removed(repository: Repository, store: MemoryStorage) -> tuple[bytes, bytes]:
    """A slot that was added and removed again: its digest, and what was stored."""
    added = bytes.fromhex(add(repository, SECOND))
    data = store.retrieve(slot_name(added))
    repository.slots.remove(added.hex(), repository.clock)
    return added, data


def put(store: MemoryStorage, data: bytes) -> str:
    """An object that has the name of a slot; its id."""
    digest = sha256(data)
    store.store(slot_name(digest), data)
    return digest.hex()


def foreign_slot() -> bytes:
    """A slot of another repository that the same secret opens."""
    other = MemoryStorage()
    with Repository.create(other, SECOND, environment=Environment(clock=FakeClock())):
        return other.retrieve(next(other.list("keys/slots/")).name)


def test_a_secret_that_was_added_is_listed_and_known(repository: Repository) -> None:
    added = add(repository, SECOND, "laptop")
    shown = {slot.id: slot for slot in repository.slots.list()}
    assert shown.keys() == {added, first_slot(repository)}
    assert (shown[added].kind, shown[added].created, shown[added].note) == ("keyfile", CREATED, "laptop")
    assert shown[added].opens
    assert repository.slots.opened_by(SECOND) == added
    assert sorted(shown) == [digest.hex() for digest in repository.slots.digests()]


def test_a_secret_is_not_added_twice(repository: Repository) -> None:
    known = first_slot(repository)
    with pytest.raises(InvalidRequest, match="opens the repository already") as refused:
        add(repository, FIRST)
    assert known[:8] in str(refused.value.cause)
    assert len(repository.slots.list()) == 1


def test_a_secret_that_opens_nothing_is_known_as_such(repository: Repository) -> None:
    assert repository.slots.opened_by(SECOND) is None


def test_a_removed_secret_opens_nothing_and_its_removal_is_on_record(
    repository: Repository, store: MemoryStorage
) -> None:
    added = add(repository, SECOND)
    repository.slots.remove(added[:6], repository.clock)
    assert repository.slots.opened_by(SECOND) is None
    assert repository.slots.was_removed(bytes.fromhex(added))
    assert repository.slots.lost((bytes.fromhex(added), bytes.fromhex(first_slot(repository)))) == []
    assert repository.slots.returned() == []


def test_a_slot_that_is_gone_without_a_record_is_lost(repository: Repository, store: MemoryStorage) -> None:
    added = bytes.fromhex(add(repository, SECOND))
    store.delete(slot_name(added))
    assert repository.slots.lost((added,)) == [added]


def test_a_slot_that_comes_back_after_its_removal_is_told(repository: Repository, store: MemoryStorage) -> None:
    added, data = removed(repository, store)
    store.store(slot_name(added), data)
    assert repository.slots.returned() == [added]


def test_a_removal_that_was_interrupted_after_its_record_can_be_done_again(
    repository: Repository, store: MemoryStorage
) -> None:
    added, data = removed(repository, store)
    record = store.retrieve(slot_removal_name(added))
    store.store(slot_name(added), data)
    repository.slots.remove(added.hex(), repository.clock)
    assert repository.slots.opened_by(SECOND) is None
    assert store.retrieve(slot_removal_name(added)) == record


def spoil_removal(store: MemoryStorage, digest: bytes) -> str:
    name = slot_removal_name(digest)
    store.store(name, store.retrieve(name)[:-1], overwrite=True)
    return name


def test_a_damaged_record_of_removal_is_told_by_verify(repository: Repository, store: MemoryStorage) -> None:
    added = bytes.fromhex(add(repository, SECOND))
    repository.slots.remove(added.hex(), repository.clock)
    assert not any(finding.check == "signature" for finding in run_verify(repository).findings)
    name = spoil_removal(store, added)
    store.store("keys/removed/strange", b"")
    told = {finding.subject for finding in run_verify(repository).findings if finding.check == "signature"}
    assert told == {name, "keys/removed/strange"}


def test_a_slot_that_comes_back_beside_a_damaged_record_is_removed_with_a_new_record(
    repository: Repository, store: MemoryStorage
) -> None:
    added, data = removed(repository, store)
    spoil_removal(store, added)
    store.store(slot_name(added), data)
    repository.slots.remove(added.hex(), repository.clock)
    assert repository.slots.was_removed(added)
    assert not [*repository.slots.unreadable_removals()]


def test_a_record_of_removal_that_names_another_slot_counts_for_nothing(
    repository: Repository, store: MemoryStorage
) -> None:
    added = bytes.fromhex(add(repository, SECOND))
    record = repository.keyring.seal(
        RecordKind.SLOT_REMOVAL, SlotRemoval(bytes.fromhex(first_slot(repository)), repository.clock.now_ns())
    )
    store.store(slot_removal_name(added), record)
    assert not repository.slots.was_removed(added)
    with pytest.raises(CorruptedBackup, match="another slot"):
        repository.slots.check_removal(added, record)


def test_the_only_slot_cannot_be_removed(repository: Repository) -> None:
    with pytest.raises(InvalidRequest, match="only key slot that opens"):
        repository.slots.remove(first_slot(repository), repository.clock)
    assert repository.slots.opened_by(FIRST) is not None


@pytest.mark.parametrize("other", [b"{}", b"\xff", foreign_slot()], ids=["no slot", "no text", "foreign"])
def test_the_last_slot_that_opens_cannot_be_removed_beside_one_that_does_not(
    repository: Repository, store: MemoryStorage, other: bytes
) -> None:
    useless = put(store, other)
    shown = {slot.id: slot for slot in repository.slots.list()}
    assert not shown[useless].opens
    with pytest.raises(InvalidRequest, match="only key slot that opens"):
        repository.slots.remove(first_slot(repository), repository.clock)
    repository.slots.remove(useless, repository.clock)  # that one may go
    assert [slot.id for slot in repository.slots.list()] == [first_slot(repository)]


class Meanwhile(Wrapper):
    """Does something once: just before, or just after, a removal is recorded."""

    def __init__(
        self, inner: StorageBackend, *, before: Callable[[], object] = bool, after: Callable[[], object] = bool
    ) -> None:
        super().__init__(inner)
        self.before, self.after = before, after

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if name.startswith("keys/removed/"):
            self.before()
        super().store(name, data, overwrite=overwrite)
        if name.startswith("keys/removed/"):
            self.after()


def test_a_removal_is_refused_when_another_one_took_the_only_other_slot_meanwhile(
    repository: Repository, store: MemoryStorage
) -> None:
    first, added = first_slot(repository), add(repository, SECOND)
    behind = Meanwhile(store, before=lambda: repository.slots.remove(added, repository.clock))
    with pytest.raises(InvalidRequest, match="only key slot that opens"):
        SlotStore(behind, repository.keyring).remove(first, repository.clock)
    assert repository.slots.opened_by(FIRST) == first


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_removal_is_refused_when_another_one_of_the_only_other_slot_is_on_record_meanwhile(
    repository: Repository, store: MemoryStorage, when: str
) -> None:
    first, added = first_slot(repository), add(repository, SECOND)

    def begin() -> None:
        store.store(slot_removal_name(bytes.fromhex(added)), removal_of(repository, added))

    behind = Meanwhile(store, before=begin) if when == "before" else Meanwhile(store, after=begin)
    with pytest.raises(InvalidRequest, match="was not removed"):
        SlotStore(behind, repository.keyring).remove(first, repository.clock)
    assert {slot.id for slot in repository.slots.list()} == {first, added}


def test_a_removal_that_begins_after_the_record_of_another_one_is_refused(
    repository: Repository, store: MemoryStorage
) -> None:
    first, added = first_slot(repository), add(repository, SECOND)

    def other() -> None:
        with pytest.raises(InvalidRequest, match="was not removed"):
            repository.slots.remove(added, repository.clock)

    SlotStore(Meanwhile(store, after=other), repository.keyring).remove(first, repository.clock)
    assert [(slot.id, slot.removed) for slot in repository.slots.list()] == [(added, False)]


def test_slots_that_two_removals_refused_are_shown_and_go_when_another_was_added(
    repository: Repository, store: MemoryStorage
) -> None:
    first, added = first_slot(repository), add(repository, SECOND)
    for ident in (first, added):
        store.store(slot_removal_name(bytes.fromhex(ident)), removal_of(repository, ident))
    assert all(slot.opens and slot.removed for slot in repository.slots.list())
    with pytest.raises(InvalidRequest, match="was not removed") as refused:
        repository.slots.remove(first, repository.clock)
    assert "key add" in str(refused.value.hint)
    again = add(repository, FIRST)  # the same secret: its slot counts for nothing
    with pytest.raises(InvalidRequest, match="opens the repository already"):
        add(repository, FIRST)
    repository.slots.remove(first, repository.clock)
    repository.slots.remove(added, repository.clock)
    assert [(slot.id, slot.removed) for slot in repository.slots.list()] == [(again, False)]


def test_a_damaged_record_of_removal_is_replaced_by_the_next_removal(
    repository: Repository, store: MemoryStorage
) -> None:
    added = add(repository, SECOND)
    store.store(slot_removal_name(bytes.fromhex(added)), b"torn")
    repository.slots.remove(added, repository.clock)
    assert repository.slots.was_removed(bytes.fromhex(added))


class Copied:
    """A repository with a copy; of two secrets one is removed in the first store alone."""

    def __init__(self) -> None:
        self.first, self.copy = NamedStorage("first"), NamedStorage("copy")
        with Repository.create(self.mirror(), FIRST, environment=Environment(clock=FakeClock())) as made:
            self.added = add(made, SECOND)
        with Repository.open(self.first, FIRST) as alone:
            alone.slots.remove(self.added, alone.clock)

    def mirror(self) -> Mirrored:
        return Mirrored([self.first, self.copy])

    def write(self) -> None:
        with Repository.open(self.mirror(), FIRST) as repository:
            repository.begin_session().close()

    def opens(self, secret: Secret) -> bool:
        try:
            Repository.open(self.copy, secret)
        except WrongKey:
            return False
        return True


def test_a_password_that_was_removed_without_a_copy_opens_it_no_more_once_it_is_written_to() -> None:
    copied = Copied()
    assert copied.opens(SECOND)
    copied.write()
    assert not copied.opens(SECOND)
    assert copied.opens(FIRST)
    with Repository.open(copied.mirror(), FIRST) as repository:
        assert not run_verify(repository, []).failure


def test_a_copy_keeps_a_slot_whose_removal_is_not_on_record_or_was_not_carried_out() -> None:
    lost, refused = Copied(), Copied()
    lost.first.delete(slot_removal_name(bytes.fromhex(lost.added)))
    refused.first.store(slot_name(bytes.fromhex(refused.added)), refused.copy.retrieve(slot_of(refused.added)))
    for copied in (lost, refused):
        copied.write()
        assert copied.opens(SECOND)


def test_a_copy_keeps_the_last_slot_that_opens_it() -> None:
    copied = Copied()
    for info in [*copied.copy.list("keys/slots/")]:
        if info.name != slot_of(copied.added):
            copied.copy.delete(info.name)
    with Repository.open(copied.first, FIRST) as repository:
        repository.slots.remove_from(copied.copy)
    assert copied.opens(SECOND)


def test_a_copy_that_refuses_to_delete_a_slot_gets_all_the_same_what_it_lacks() -> None:
    copied = Copied()
    copied.copy.kept = slot_of(copied.added)
    copied.write()
    assert copied.copy.exists(slot_removal_name(bytes.fromhex(copied.added)))
    with Repository.open(copied.mirror(), FIRST) as repository:
        assert slot_of(copied.added) in {finding.subject for finding in run_verify(repository).findings}


def test_a_record_of_removal_that_the_disk_does_not_give_is_told(repository: Repository, store: MemoryStorage) -> None:
    added = add(repository, SECOND)
    repository.slots.remove(added, repository.clock)
    name = slot_removal_name(bytes.fromhex(added))
    slots = SlotStore(Unreadable(store, name), repository.keyring)
    assert [name for name, _ in slots.unreadable_removals()] == [name]
    assert not slots.was_removed(bytes.fromhex(added))


def slot_of(ident: str) -> str:
    return slot_name(bytes.fromhex(ident))


class NamedStorage(MemoryStorage):
    """One that is told from others by its address, and refuses to delete `kept`."""

    kept = ""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def delete(self, name: str) -> None:
        if name == self.kept:
            raise StorageRefused(f"cannot delete {name}", cause="retention")
        super().delete(name)

    @property
    def url(self) -> str:
        return f"memory://{self._name}"


class Unreadable(Wrapper):
    """A store whose disk does not give one object."""

    def __init__(self, inner: StorageBackend, name: str) -> None:
        super().__init__(inner)
        self._name = name

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        if name == self._name:
            raise ObjectUnreadable(f"cannot read {name}", cause="Input/output error")
        return super().retrieve(name, start=start, length=length)


def removal_of(repository: Repository, ident: str) -> bytes:
    record = SlotRemoval(bytes.fromhex(ident), repository.clock.now_ns())
    return repository.keyring.seal(RecordKind.SLOT_REMOVAL, record)


def test_an_unclear_or_unknown_id_removes_nothing(repository: Repository) -> None:
    add(repository, SECOND)
    with pytest.raises(InvalidRequest, match="the id of the key slot is empty"):
        repository.slots.remove("", repository.clock)
    alike = [dataclasses.replace(slot, id=f"ab{slot.id}") for slot in repository.slots.list()]
    with pytest.raises(InvalidRequest, match="ab stands for 2 key slots"):
        _chosen("ab", alike)
    with pytest.raises(NotFound, match="no key slot xyz"):
        repository.slots.remove("xyz", repository.clock)
    assert len(repository.slots.list()) == 2


def changed(data: bytes, **fields: object) -> bytes:
    return json.dumps({**json.loads(data), **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"version": 2}, "newer version"),
        ({"unknown": 1}, "cannot be read"),
        ({"kind": 7}, "cannot be read"),
        ({"note": "0" * 70_000}, "too large"),
    ],
    ids=str,
)
def test_a_slot_that_cannot_be_read_is_shown_as_damaged(
    repository: Repository, store: MemoryStorage, fields: dict[str, object], told: str
) -> None:
    data = store.retrieve(slot_name(bytes.fromhex(first_slot(repository))))
    ident = put(store, changed(data, **fields))
    slot = next(slot for slot in repository.slots.list() if slot.id == ident)
    assert (slot.kind, slot.opens) == ("damaged", False)
    assert told in slot.note


@pytest.mark.parametrize("field", ["salt", "commitment", "sealed", "note"])
def test_a_slot_with_a_malformed_field_opens_nothing_and_hides_no_other(
    repository: Repository, store: MemoryStorage, field: str
) -> None:
    known = first_slot(repository)
    put(store, changed(store.retrieve(slot_name(bytes.fromhex(known))), **{field: "zz"}))
    store.delete(slot_name(bytes.fromhex(known)))
    if field == "note":  # nothing but the remark is lost
        assert repository.slots.opened_by(FIRST) is not None
    else:
        assert repository.slots.opened_by(FIRST) is None
    added = add(repository, SECOND)
    assert repository.slots.opened_by(SECOND) == added


def test_a_slot_whose_bytes_do_not_match_its_name_is_damaged(repository: Repository, store: MemoryStorage) -> None:
    known = first_slot(repository)
    store.store(slot_name(b"\1" * 32), store.retrieve(slot_name(bytes.fromhex(known))))
    (slot,) = (slot for slot in repository.slots.list() if slot.id != known)
    assert (slot.kind, slot.opens) == ("damaged", False)


def test_a_slot_that_is_removed_while_all_are_read_is_passed_over(repository: Repository, store: MemoryStorage) -> None:
    added = add(repository, SECOND)
    reading = SlotStore.read_all(store)
    read = [next(reading)[0].rpartition("/")[2]]
    for ident in {added, first_slot(repository)} - set(read):
        store.delete(slot_name(bytes.fromhex(ident)))
    assert list(reading) == []


def test_nobody_opens_or_protects_a_repository_with_an_empty_passphrase() -> None:
    with pytest.raises(InvalidRequest, match="the passphrase is empty"):
        Secret.passphrase("")


def test_each_form_of_a_secret_is_read_as_what_it_is() -> None:
    keyfile, recovery = Secret.new_keyfile(), Secret.new_recovery()
    assert Secret.parse_keyfile(keyfile.printed()) == keyfile
    assert Secret.parse_recovery(recovery.printed()) == recovery
    with pytest.raises(InvalidRequest, match="not a backstay key file"):
        Secret.parse_keyfile(recovery.printed())
    with pytest.raises(InvalidRequest, match="passphrase is not printed"):
        Secret.passphrase("what nobody may read").printed()

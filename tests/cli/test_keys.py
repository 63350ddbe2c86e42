"""key list, add, remove, rotate, recovery."""

from __future__ import annotations

import stat

import pytest

from backstay.errors import InsufficientSpace
from backstay.storage.backend import Buffer
from backstay.storage.local import LocalStorage
from backstay.testing import CrashPoint
from tests.cli.conftest import Account, FullStream


def slots(account: Account) -> dict[str, str]:
    """Kind of each slot, by id."""
    return {slot["id"]: slot["kind"] for slot in account.json("key", "list")["slots"]}


def test_a_second_password(saved: Account) -> None:
    saved.run("key", "add", "--note", "for the other admin", env={"BACKSTAY_NEW_PASSWORD": "second passphrase"})
    saved.run("list", env={"BACKSTAY_PASSWORD": "second passphrase"})
    file = saved.root / "third"
    file.write_text("third passphrase\n")
    saved.run("key", "add", "--new-password-file", file)
    saved.run("list", "--password-file", file)
    assert sorted(slots(saved).values()) == ["keyfile", "passphrase", "passphrase", "recovery"]
    assert "for the other admin" in saved.run("key", "list").out


def test_a_password_that_opens_the_repository_already(saved: Account) -> None:
    saved.run("key", "add", env={"BACKSTAY_NEW_PASSWORD": "second passphrase"})
    before = slots(saved)
    problem = saved.json("key", "add", env={"BACKSTAY_NEW_PASSWORD": "second passphrase"}, status=2)
    passphrase = next(ident for ident, kind in before.items() if kind == "passphrase")
    assert passphrase[:8] in problem["cause"]
    saved.run("key", "add", "--new-password-file", saved.key_file, status=2)
    assert slots(saved) == before


def test_an_empty_id_names_no_key_slot(saved: Account) -> None:
    before = slots(saved)
    assert "the id of the key slot is empty" in saved.run("key", "remove", "", status=2).err
    saved.json("key", "add", env={"BACKSTAY_NEW_PASSWORD": "second passphrase"})
    assert "the id of the key slot is empty" in saved.run("key", "remove", "", status=2).err
    assert len(slots(saved)) == len(before) + 1


def test_a_removed_password_may_come_back(saved: Account) -> None:
    env = {"BACKSTAY_NEW_PASSWORD": "second passphrase"}
    slot = saved.json("key", "add", env=env)["slot"]
    saved.run("key", "remove", slot)
    saved.run("key", "add", env=env)
    saved.run("list", env={"BACKSTAY_PASSWORD": "second passphrase"})


def test_a_password_whose_removal_was_interrupted_is_listed_as_such(
    saved: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = saved.json("key", "add", env={"BACKSTAY_NEW_PASSWORD": "second passphrase"})["slot"]
    with monkeypatch.context() as interrupted:
        interrupted.setattr(LocalStorage, "delete", lambda *_: None)
        saved.run("key", "remove", slot)
    assert "removed, but still there" in saved.run("key", "list").out
    saved.run("key", "remove", slot)
    assert "removed, but still there" not in saved.run("key", "list").out


def test_a_key_file(saved: Account) -> None:
    file = saved.root / "second.key"
    saved.run("key", "add", "--new-key-file", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    saved.key_file.unlink()
    saved.run("list", "--password-file", file)
    saved.run("list", env={"BACKSTAY_PASSWORD_FILE": str(file)})
    content = file.read_text()
    saved.run("key", "add", "--new-key-file", file, "--password-file", file, status=2)
    assert file.read_text() == content


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_key_file_whose_slot_cannot_be_stored(
    saved: Account, monkeypatch: pytest.MonkeyPatch, is_stored: bool
) -> None:
    """Nothing is left; or, when the slot is there all the same, what the next run goes on with."""
    store = LocalStorage.store

    def full(self: LocalStorage, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if name.startswith("keys/slots/"):
            if is_stored:
                store(self, name, data, overwrite=overwrite)
            raise InsufficientSpace("the disk is full")
        store(self, name, data, overwrite=overwrite)

    file = saved.root / "second.key"
    before = sorted(saved.root.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "store", full)
        saved.run("key", "add", "--new-key-file", file, status=14)
    assert not file.exists()
    assert (sorted(saved.root.iterdir()) == before) == (not is_stored)
    saved.run("key", "add", "--new-key-file", file)
    assert sorted(slots(saved).values()) == ["keyfile", "keyfile", "recovery"]
    saved.run("list", "--password-file", file)
    assert sorted(saved.root.iterdir()) == [*before, file]


@pytest.mark.parametrize("step", ["add", "link"])
def test_a_key_file_whose_making_was_killed(saved: Account, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def killed(*_: object, **__: object) -> None:
        raise CrashPoint

    file = saved.root / "second.key"
    with monkeypatch.context() as patched:
        place = "backstay.repository.keys.slots.SlotStore.add" if step == "add" else "backstay.cli.keys.finish_key_file"
        patched.setattr(place, killed)
        with pytest.raises(CrashPoint):
            saved.run("key", "add", "--new-key-file", file)
    assert not file.exists()
    assert "second.key.new" in saved.run("key", "add", "--new-key-file", file).out
    assert sorted(slots(saved).values()) == ["keyfile", "keyfile", "recovery"]
    saved.run("list", "--password-file", file)


def test_remove(saved: Account) -> None:
    ids = slots(saved)
    keyfile = next(ident for ident, kind in ids.items() if kind == "keyfile")
    recovery = next(ident for ident, kind in ids.items() if kind == "recovery")
    saved.run("key", "remove", recovery[:10])
    saved.run("key", "remove", keyfile, status=2)  # the last one
    saved.run("list")


def test_a_removed_key_that_comes_back_is_told(saved: Account) -> None:
    """As from an old copy of the store, or when a removal was interrupted."""
    slot = saved.json("key", "add", env={"BACKSTAY_NEW_PASSWORD": "second passphrase"})["slot"]
    file = saved.repository / "keys/slots" / slot
    content = file.read_bytes()
    saved.run("key", "remove", slot)
    saved.run("verify")
    file.write_bytes(content)
    [finding] = saved.json("verify", status=13)["findings"]
    assert finding["subject"] == f"keys/slots/{slot}"
    assert f"backstay key remove {slot[:8]}" in finding["hint"]
    saved.run("key", "remove", slot[:8])
    saved.run("verify")


def test_rotate(saved: Account) -> None:
    assert "data key 2" in saved.run("key", "rotate").out
    saved.run("backup", saved.documents)
    done = saved.json("key", "rotate", "--compromised")
    assert done == {"epoch": 3, "compromised": [1, 2]}
    assert "compromised" in saved.run("key", "list").out
    saved.run("gc")
    saved.run("verify", "--read-data")
    assert saved.json("gc", "-n")["packs_to_rewrite"] == 0


def test_recovery(saved: Account) -> None:
    done = saved.run("key", "recovery")
    key = next(line.split()[-1] for line in done.err.splitlines() if "Recovery key:" in line)
    assert key not in done.out
    saved.run("list", env={"BACKSTAY_PASSWORD": key})
    assert key not in saved.run("--json", "key", "recovery").out


def test_a_recovery_key_that_cannot_be_shown_is_taken_back(saved: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    before = slots(saved)
    monkeypatch.setattr("sys.stderr", FullStream())
    saved.run("key", "recovery", status=1)
    assert slots(saved) == before


def test_a_new_password_needs_somebody_to_ask(saved: Account) -> None:
    done = saved.run("key", "add", status=12)
    assert "--new-password-file" in done.err


@pytest.mark.parametrize("empty", ["", "\n"])
def test_an_empty_password_file(saved: Account, empty: str) -> None:
    file = saved.root / "empty"
    file.write_text(empty)
    saved.run("key", "add", "--new-password-file", file, status=2)

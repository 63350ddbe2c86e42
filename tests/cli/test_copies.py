"""copy, repair --from-copy, --mirror, --max-size."""

from __future__ import annotations

import os
import random
import shlex
import shutil
from pathlib import Path

import pytest

from backstay.cli.main import run
from backstay.testing import FakeClock
from tests.cli.conftest import Account


def objects(place: Path) -> dict[str, bytes]:
    """Every object of a repository but those that mean something in one place only."""
    files = (path for path in place.rglob("*") if path.is_file())
    found = {str(path.relative_to(place)): path.read_bytes() for path in files}
    return {
        name: data for name, data in found.items() if name.split("/")[0] not in ("sessions", "lease", "mirror", "quota")
    }


@pytest.fixture
def mirrored(account: Account) -> Account:
    """An account whose default repository has a copy in `copy`, both with one snapshot."""
    (account.documents / "random").write_bytes(random.Random(1).randbytes(500_000))
    account.run("--mirror", account.root / "copy", "backup", account.documents)
    return account


def test_an_empty_place_becomes_a_copy(saved: Account) -> None:
    target = saved.root / "copy"
    done = saved.json("copy", "--to", target)
    assert done["kind"] == "mirror"
    assert done["objects"] == len(objects(saved.repository))
    assert objects(target) == objects(saved.repository)
    again = saved.run("copy", "--to", target)
    assert "0 objects" in again.out
    assert "every object of the repository, by name and size" in again.out
    assert saved.json("-r", target, "--password-file", saved.key_file, "list")[0]["name"] == "docs"


def test_a_repository_is_not_copied_onto_itself_under_any_name(saved: Account) -> None:
    link = saved.root / "link"
    link.symlink_to(saved.repository)
    before = objects(saved.repository)
    for name in (saved.repository, f"file:{saved.repository}", link):
        assert "onto itself" in saved.run("copy", "--to", name, status=2).err
    assert objects(saved.repository) == before


def test_what_a_copy_does_not_look_at_is_said_with_what_does(saved: Account) -> None:
    """Damage that keeps the size is not noticed by copying again."""
    target = saved.root / "a copy"
    saved.run("copy", "--to", target)
    pack = next(path for path in (target / "packs").rglob("*") if path.is_file())
    pack.chmod(0o600)
    pack.write_bytes(b"x" + pack.read_bytes()[1:])
    again = saved.run("copy", "--to", target).out
    assert "whole" not in again
    told = again.partition("`backstay ")[2].partition("`")[0]
    assert shlex.split(told) == ["-r", str(target), "verify", "--read-data"]
    saved.run("--password-file", saved.key_file, *shlex.split(told), status=13)


def test_snapshots_go_into_another_repository(saved: Account) -> None:
    target = saved.root / "other"
    env = {"BACKSTAY_PASSWORD": "theirs"}
    saved.run("-r", target, "init", env=env)
    to = {"BACKSTAY_TO_PASSWORD": "theirs"}
    first = saved.json("copy", "latest", "--to", target, env=to)
    assert (first["kind"], len(first["copied"])) == ("snapshots", 1)
    second = saved.json("copy", "--to", target, env=to)
    assert (second["copied"], len(second["already"]), second["bytes"]) == ([], 1, 0)
    saved.run("-r", target, "verify", "--read-data", env=env)
    saved.run("-r", target, "restore", "latest", "--to", saved.root / "out", env=env)
    assert (saved.root / "out" / str(saved.documents).lstrip("/") / "note").read_text() == "a note\n"
    assert saved.json("copy", "--to", target, status=12)["code"] == "WrongKey"


def test_a_copy_may_lie_at_a_path_that_is_no_text(saved: Account) -> None:
    copy = saved.root / os.fsdecode(b"copy-\xff")
    saved.run("copy", "--to", copy)
    saved.run("--mirror", copy, "backup", saved.documents)
    assert "cannot be seen" in saved.run("--mirror", os.fsdecode(b"\xff"), "--quorum", 1, "list").err
    assert objects(copy).keys() >= objects(saved.repository).keys()


def test_copies_that_make_no_sense(saved: Account) -> None:
    saved.run("copy", "--to", saved.root / "copy")
    assert saved.json("copy", status=2)["code"] == "InvalidRequest"
    saved.run("copy", "latest", "--to", saved.root / "copy", status=2)
    saved.run("copy", "--to", saved.documents.parent, status=2)


def test_damage_is_told_and_not_copied(saved: Account) -> None:
    pack = next(path for path in (saved.repository / "packs").rglob("*") if path.is_file())
    pack.chmod(0o600)
    pack.write_bytes(b"x" + pack.read_bytes()[1:])
    done = saved.json("copy", "--to", saved.root / "copy", status=13)
    assert [finding["subject"] for finding in done["findings"]] == [str(pack.relative_to(saved.repository))]


def test_a_mirror_gets_every_object(mirrored: Account) -> None:
    copy = mirrored.root / "copy"
    assert objects(copy) == objects(mirrored.repository)
    (mirrored.documents / "more").write_text("more")
    mirrored.run("--mirror", copy, "backup", mirrored.documents)
    assert objects(copy) == objects(mirrored.repository)
    assert len(mirrored.json("list")) == 2
    mirrored.run("--mirror", copy, "delete", mirrored.json("list")[0]["id"])
    mirrored.run("--mirror", copy, "gc")
    assert objects(copy) == objects(mirrored.repository)


def test_a_link_to_the_repository_is_no_copy_of_it(saved: Account) -> None:
    link = saved.root / "link"
    link.symlink_to(saved.repository)
    before = len(saved.json("list"))
    for _ in range(2):
        refused = saved.run("--mirror", link, "backup", saved.documents, status=2)
        assert "it is the same store as the first one" in refused.err
    assert len(saved.json("list")) == before


def test_a_mirror_that_is_away_is_completed_later(mirrored: Account) -> None:
    copy, away = mirrored.root / "copy", mirrored.root / "away"
    copy.rename(away)
    (mirrored.documents / "more").write_text("more")
    mirrored.run("--mirror", copy, "backup", mirrored.documents, status=15)
    done = mirrored.run("--mirror", copy, "--quorum", 1, "backup", mirrored.documents)
    assert "is left behind until it can be reached" in done.err
    mirrored.run("--mirror", copy, "--quorum", 1, "delete", mirrored.json("list")[-1]["id"])
    mirrored.run("--mirror", copy, "--quorum", 1, "delete", mirrored.json("list")[-1]["id"])
    refused = mirrored.json("--mirror", copy, "--quorum", 1, "gc", "--allow-empty", status=15)
    assert refused["title"] == "nothing is deleted while a copy cannot be seen"
    away.rename(copy)
    mirrored.run("--mirror", copy, "backup", mirrored.documents)
    assert objects(copy) == objects(mirrored.repository)


@pytest.mark.parametrize("away", ["the repository", "its copy"])
def test_what_can_be_seen_is_verified_while_another_copy_is_away(mirrored: Account, away: str) -> None:
    """As in a disaster: a recovery looks at a backup before it needs it."""
    place, copy = mirrored.repository, mirrored.root / "copy"
    gone = copy if away == "its copy" else place
    gone.rename(mirrored.root / "away")
    found = mirrored.run("--password-file", mirrored.key_file, "--mirror", copy, "verify", "--read-data")
    assert f"the copy {gone} cannot be seen" in found.err


def test_a_repository_heals_from_its_copy(mirrored: Account) -> None:
    golden = objects(mirrored.repository)
    packs = [path for path in (mirrored.repository / "packs").rglob("*") if path.is_file()]
    packs[0].unlink()
    next((mirrored.repository / "snapshots").iterdir()).unlink()
    copy = mirrored.root / "copy"
    mirrored.run("--mirror", copy, "restore", "latest", "--to", mirrored.root / "out")
    healed = mirrored.json("repair", "packs", "--from-copy", copy)
    assert healed["changed"]
    assert len(healed["objects_healed"]) == 2
    assert objects(mirrored.repository) == golden
    assert "nothing needed repair" in mirrored.run("repair", "packs", "--from-copy", copy).out
    shutil.rmtree(mirrored.repository)
    assert "objects brought back from the copy" in mirrored.run("repair", "packs", "--from-copy", copy).out
    assert objects(mirrored.repository) == golden
    mirrored.run("verify", "--read-data")


def test_each_copy_is_verified_by_itself_as_verify_says(mirrored: Account) -> None:
    copy = mirrored.root / "copy"
    next(path for path in (copy / "packs").rglob("*") if path.is_file()).unlink()
    assert "without --mirror" not in mirrored.run("verify").out
    assert "`-r REPO` without --mirror looks at one" in mirrored.run("--mirror", copy, "verify", "--read-data").out
    key = ("--password-file", mirrored.key_file, "-r", copy)
    assert "`backstay repair packs --from-copy REPO` brings it back" in mirrored.run(*key, "verify", status=13).err
    mirrored.run(*key, "repair", "packs", "--from-copy", mirrored.repository)
    mirrored.run(*key, "verify", "--read-data")


def test_packs_that_were_given_up_stay_in_the_copy_and_come_back(mirrored: Account) -> None:
    copy = mirrored.root / "copy"
    mirrored.run("copy", "--to", copy)
    for pack in (mirrored.repository / "packs").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            pack.write_bytes(bytes(pack.stat().st_size))
    given_up = mirrored.run("repair", "packs").out
    assert "`backstay repair packs --from-copy` brings back what a copy has" in given_up
    mirrored.run("verify", status=13)
    mirrored.run("--mirror", copy, "backup", mirrored.documents)
    mirrored.run("--password-file", mirrored.key_file, "-r", copy, "verify", "--read-data")
    assert mirrored.json("repair", "packs", "--from-copy", copy)["objects_healed"]
    mirrored.run("verify", "--read-data")


def test_what_both_copies_lost_is_told(mirrored: Account) -> None:
    copy = mirrored.root / "copy"
    for place in (mirrored.repository, copy):
        for pack in (place / "packs").rglob("*"):
            if pack.is_file():
                pack.unlink()
    result = mirrored.json("repair", "packs", "--from-copy", copy, status=13)
    assert f"{mirrored.documents}/random" in {lost["path"] for lost in result["lost"]}


def test_what_both_copies_lost_of_snapshots_and_records_is_told_with_what_to_do(mirrored: Account) -> None:
    copy = mirrored.root / "copy"
    for text in ("one", "two"):
        (mirrored.documents / "more").write_text(text)
        mirrored.run("--mirror", copy, "backup", mirrored.documents)
    first, second, _ = (snapshot["id"] for snapshot in mirrored.json("list"))
    mirrored.run("--mirror", copy, "delete", first)
    mirrored.run("--mirror", copy, "gc")
    for place in (mirrored.repository, copy):
        (place / "snapshots" / second).unlink()
        record = place / "gc" / "00000001.done"
        record.chmod(0o600)
        record.write_bytes(record.read_bytes()[:-1])
    done = mirrored.json("repair", "packs", "--from-copy", copy, status=13)
    told = {finding["subject"] for finding in done["findings"]}
    assert told == {f"snapshots/{second}", "gc/00000001.done"}
    said = mirrored.run("repair", "packs", "--from-copy", copy, status=13).err
    assert "accept the loss with `backstay repair snapshots`" in said


def test_a_mirror_in_what_is_backed_up_is_left_out(account: Account) -> None:
    copy = account.documents / "copy"
    account.run("--mirror", copy, "backup", account.documents)
    account.run("--mirror", copy, "backup", account.documents)
    listed = account.run("ls", "latest", account.documents).out
    assert "note" in listed
    assert "copy" not in listed


def test_a_repository_does_not_grow_beyond_its_limit(saved: Account) -> None:
    (saved.documents / "large").write_bytes(os.urandom(2 << 20))
    problem = saved.json("--max-size", "1MiB", "backup", saved.documents, status=14)
    assert problem["code"] == "QuotaExceeded"
    assert "1.0 MiB" in problem["title"]
    saved.run("--max-size", "1MiB", "gc")
    done = saved.run("backup", saved.documents, "--max-size", "2.5MiB", status=2)
    done = saved.run("backup", saved.documents, "--max-size", "3700KiB")
    assert "has reached 80 % of its limit" in done.err
    saved.run("verify", "--read-data")


def test_limits_of_speed_are_taken(saved: Account) -> None:
    saved.run("--limit-upload", "100MiB", "--limit-download", "100MiB", "backup", saved.documents)
    saved.run("--limit-upload", "0", "backup", saved.documents, status=2)


def test_requests_are_counted_out(saved: Account) -> None:
    clock = FakeClock()
    assert run(["list", "--limit-requests", "1"], saved.environ, clock=clock) == 0
    assert sum(clock.slept) >= 2
    clock = FakeClock()
    assert run(["--limit-requests", "1000", "list"], saved.environ, clock=clock) == 0
    assert sum(clock.slept) < 1
    saved.run("--limit-requests", "0", "list", status=2)

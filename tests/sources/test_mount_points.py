"""What is mounted where, as Linux tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.sources.mount_points import is_shared, mounted_in, mounted_within, mounts_below

LINES = {
    b"/": b"22 1 8:1 / / rw - ext4 /dev/sda1 rw",
    b"/srv/www": b"30 22 0:40 / /srv/www rw - nfs4 server:/www rw",
    b"/srv/two words": rb"31 22 0:41 / /srv/two\040words rw - tmpfs tmpfs rw",
    b"/srv/www2": b"32 22 0:42 / /srv/www2 rw - tmpfs tmpfs rw",
}


@pytest.mark.parametrize(
    ("place", "seen"),
    [
        (b"/srv/www/site", [b"/", b"/srv/www"]),
        (b"/srv/www", [b"/", b"/srv/www"]),
        (b"/srv", list(LINES)),
        (b"/srv/two words/x", [b"/", b"/srv/two words"]),
        (b"/home", [b"/"]),
        (b"/", list(LINES)),
    ],
)
def test_mounts_at_below_and_above_a_place_count(tmp_path: Path, place: bytes, seen: list[bytes]) -> None:
    file = tmp_path / "mountinfo"
    file.write_bytes(b"\n".join(LINES.values()) + b"\n")
    assert mounts_below((place,), file) == tuple(LINES[one] for one in seen)


def test_mounts_above_a_place_and_beside_it_do_not_lie_within(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_bytes(b"\n".join(LINES.values()) + b"\n")
    assert mounted_within(b"/srv/www", file) == [b"/srv/www"]
    assert mounted_within(b"/srv/two words", file) == [b"/srv/two words"]
    assert mounted_within(b"/srv/www/site", file) == []
    assert mounted_within(b"/", file) == list(LINES)


def test_places_of_mounts_are_known_by_the_directories_that_they_lie_in() -> None:
    assert mounted_in(tuple(LINES.values())) == {
        b"/": [b"/"],
        b"/srv": [b"/srv/www", b"/srv/two words", b"/srv/www2"],
    }


def test_this_machine_has_mounts() -> None:
    assert mounts_below((b"/",))


@pytest.mark.parametrize(
    ("magic", "shared"),
    [(0x6969, True), (0x65735546, True), (0x6B414653, True), (0x786F4256, True), (0xEF53, False), (0x4D44, False)],
)
def test_file_systems_that_others_change_are_known(magic: int, *, shared: bool) -> None:
    assert is_shared(3, kind=lambda _: magic) is shared

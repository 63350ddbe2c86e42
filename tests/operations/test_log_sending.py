"""Files of logs go into another repository up to where they are damaged, and no further."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from backstay.core.events import ignore
from backstay.operations.copies.log_sending import LogSender
from backstay.repository.format import wal_name
from backstay.repository.repository import Repository
from backstay.repository.wal.slices import SLICE, end_name, slice_name
from backstay.trust.secrets import Secret
from tests.operations.copies import SECRET, SMALL_PACKS, Store, damaged

OTHER = Secret.new_keyfile()
SYSTEM = 8
FIRST, SECOND = "shop-bin.000001", "shop-bin.000002"
SLICES = 6


@pytest.fixture
def here() -> Iterator[Repository]:
    """Two files of a binary log, each in a few slices."""
    with Repository.create(Store("here"), SECRET, environment=SMALL_PACKS) as repository:
        for log in (FIRST, SECOND):
            for number in range(SLICES):
                repository.wal.store(SYSTEM, slice_name(log, number), b"%d of %b" % (number, log.encode()))
            repository.wal.store(SYSTEM, end_name(log), b"100")
        yield repository


@pytest.fixture
def there() -> Iterator[Repository]:
    with Repository.create(Store("there"), OTHER, environment=SMALL_PACKS) as repository:
        yield repository


@pytest.mark.parametrize("bad", range(SLICES))
def test_what_lies_before_a_damaged_slice_goes(here: Repository, there: Repository, bad: int) -> None:
    """Files are read ahead: that one further on is damaged is known before those in front of it are sent."""
    name = wal_name(SYSTEM, slice_name(FIRST, bad))
    here.backend.store(name, damaged(here.backend.retrieve(name), random.Random(bad)), overwrite=True)
    sender = LogSender(here, there, events=ignore)
    wanted = {file: stored for file, stored in here.wal.files(SYSTEM).items() if not file.endswith(".end")}
    for log in (FIRST, SECOND):
        wanted[end_name(log)] = here.wal.files(SYSTEM)[end_name(log)]
    sender.send(SYSTEM, wanted, size=SLICE, compare=())
    assert len(sender.findings.found) == 1
    before = [slice_name(FIRST, number) for number in range(bad)]
    after = [*(slice_name(SECOND, number) for number in range(SLICES)), end_name(SECOND)]
    assert sorted(there.wal.files(SYSTEM)) == sorted([*before, *after])

"""The table of contents of a dump is read rightly, or refused."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator

import pytest

from backstay.errors import BackstayError, CorruptedBackup, VersionUnsupported
from backstay.sources.postgres.archive import Contents, read_contents
from backstay.sources.postgres.roles import grantees, owners
from tests.postgres.dumps import new_database
from tests.postgres.servers import as_nobody, installation, running_server

NAMES = """
    create role "odd; role"; create schema "TABLE DATA x"; create table "TABLE DATA x"."a ""b"" c"(i int);
    grant select on "TABLE DATA x"."a ""b"" c" to "odd; role" with grant option;
    grant select on "TABLE DATA x"."a ""b"" c" to public;
    comment on table "TABLE DATA x"."a ""b"" c" is E'two\\nlines'"""


@pytest.fixture(scope="module")
def dump() -> Iterator[bytes]:
    with running_server() as server:
        url = new_database(server, "odd", NAMES)
        command = [str(installation(18) / "bin/pg_dump"), "-Fc", "-Z0", "-d", url]
        yield subprocess.run(as_nobody(command), check=True, capture_output=True, cwd="/").stdout


def read(data: bytes, size: int = 100) -> Contents:
    return read_contents(data[at : at + size] for at in range(0, len(data), size))


def test_names_are_what_they_are_however_the_dump_is_cut(dump: bytes) -> None:
    contents = read(dump)
    assert contents == read(dump, 1) == read(dump, len(dump))
    assert contents.database == "odd"
    table = next(entry for entry in contents.entries if entry.kind == "TABLE")
    assert (table.schema, table.name, table.owner) == ("TABLE DATA x", 'a "b" c', "postgres")
    schema = next(entry for entry in contents.entries if entry.kind == "SCHEMA" and entry.name == "TABLE DATA x")
    assert schema.ident in table.dependencies
    assert grantees(contents.entries) == {"odd; role"}
    assert owners(contents.entries) == {"postgres"}


def test_a_dump_of_a_later_format_is_refused(dump: bytes) -> None:
    with pytest.raises(VersionUnsupported, match=r"format 1\.99"):
        read(dump[:6] + b"\x63" + dump[7:])


def test_damage_is_told_and_never_taken_for_anything_else(dump: bytes) -> None:
    end = dump.rindex(b"TABLE DATA")  # the last entry
    for cut in range(0, end, 13):
        with pytest.raises(CorruptedBackup):
            read(dump[:cut])
    rng = random.Random(5)
    for _ in range(500):
        broken = bytearray(dump)
        for _ in range(3):
            broken[rng.randrange(end)] = rng.randrange(256)
        try:
            read(bytes(broken), 4096)
        except BackstayError:
            continue

"""Builds the golden repository with values of format 1, beside the one without; see `make_golden`.

python -m tests.formats.make_golden_values
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import zstandard

from backstay.codec.digest import sha256
from backstay.core.ids import Random, new_ulid
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.repository import Environment, Repository
from backstay.repository.values import writing as value_writing
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from backstay.trust.secrets import Secret
from tests.formats.make_golden import COST, HOUR, PASSPHRASE, PROCESS, Golden, packed, seeded
from tests.repository.referring import refer

HERE: Final = Path(__file__).parent
ARCHIVE: Final = HERE / "v1" / "values.tar.gz"
EXPECTED: Final = HERE / "v1" / "values.json"


def build() -> Golden:
    """The whole repository, from nothing."""
    with patch.object(value_writing, "VERSION", "golden"):
        return _build(seeded(5))


def _build(source: Random) -> Golden:
    clock = FakeClock()
    storage = MemoryStorage(clock=clock)
    environment = Environment(clock=clock, random=source, process=PROCESS, threads=2)
    noise = seeded(6)
    with Repository.create(storage, Secret.passphrase(PASSPHRASE), environment=environment, cost=COST) as repository:
        cas = ContentAddressableStorage(repository)
        large = noise(140_000)
        kept = [b"", b"small", large]
        for number, value in enumerate(kept):
            clock.advance(HOUR)
            cas.store(value, {"number": number, "text": "gr\u00fc\u00df dich"})
        gone = cas.store(b"to be deleted before the fold")
        cas.store({"b": 1, "a": [1.5, None, "\u20ac"]})
        cas.delete(gone)
        assert cas.fold() is not None
        clock.advance(HOUR)
        inserted = large[:70_000] + b"an insertion" + large[70_000:]
        cas.store(inserted, base=sha256(large).hex())
        with cas.batch() as batch:
            many = [b"many %d" % number * number for number in range(300)]
            for value in many:
                batch.store(value, {"in": "a batch"})
        cas.delete(cas.store(b"to be deleted after it"))
        cas.store(b"stored last")
        graph = refer(repository, [b"small", b"stored last", many[7]], graph="golden").id
        clock.advance(HOUR)
        fenced = new_ulid(clock.now_ns(), source)
        cas.intend(fenced)
        repository.snapshots.fence(fenced, 0, clock)
        json_value = b'{"a":[1.5,null,"\xe2\x82\xac"],"b":1}'
        values = sorted({sha256(value).hex() for value in [*kept, inserted, *many, b"stored last", json_value]})
        assert [key.removeprefix("sha256:") for key in cas.list()] == values
    objects = {info.name: storage.retrieve(info.name) for info in storage.list()}
    expected: dict[str, Any] = {
        "made with zstd": ".".join(map(str, zstandard.ZSTD_VERSION)),
        "values": values,
        "graph": graph,
        "objects": {name: sha256(data).hex() for name, data in sorted(objects.items())},
    }
    return Golden(dict(sorted(objects.items())), expected)


def main() -> None:
    golden = build()
    ARCHIVE.write_bytes(packed(golden.objects))
    EXPECTED.write_text(json.dumps(golden.expected, indent=1) + "\n")
    print(f"{len(golden.objects)} objects, {ARCHIVE.stat().st_size} bytes")


if __name__ == "__main__":
    main()

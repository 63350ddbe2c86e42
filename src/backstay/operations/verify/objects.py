"""Objects against the index: every segment of it is whole, and every pack that it names is there, with its size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from backstay.core.ids import is_digest
from backstay.core.quantities import format_size, plural
from backstay.errors import CorruptedBackup, ObjectNotFound, ObjectUnreadable
from backstay.operations.verify.bad_packs import BadPacks, key_of
from backstay.operations.verify.notes import Notes
from backstay.repository.collection import reserve
from backstay.repository.format import RESERVE, index_name, pack_name
from backstay.repository.index.index import PackInfo, read_segment
from backstay.repository.repository import Repository

_COPY_HINT: Final = "`backstay repair packs --from-copy REPO` brings it back from a copy; else run"
PACK_HINT: Final = f"{_COPY_HINT} `backstay repair packs`, then `backstay repair snapshots`"
GONE_HINT: Final = f"{_COPY_HINT} `backstay repair index`, then `backstay repair snapshots`"
_INDEX_HINT: Final = "run `backstay repair index`"
_RESERVE_HINT: Final = "no backup is affected; `backstay gc` sets it aside anew"


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """The check of what the stores list."""

    repository: Repository
    notes: Notes
    bad: BadPacks

    def packs(self, *, with_reserve: bool) -> dict[int, PackInfo]:
        """Every pack that the index names, after a look at which objects exist."""
        packs: dict[int, PackInfo] = {}

        def look() -> str:
            self.repository.collections.refresh()
            for name in self.repository.collections.foreign:
                self.notes.find("integrity", name, "a foreign object lies in the repository")
            for name, problem in self.repository.collections.problems().items():
                self.notes.find("integrity", name, problem)
            for name, error in self.repository.index.damaged:
                self.notes.find("integrity", name, error, _INDEX_HINT)
            self._segments()
            packs.update(self.repository.index.packs())
            self._existence(packs)
            self._cold_tier(packs)
            if with_reserve:
                self.notes.guarded("integrity", RESERVE, partial(reserve.check, self.repository.backend), _RESERVE_HINT)
            segments = self.repository.index.segments()
            return f"{plural(len(segments), 'index segment')}, {plural(len(packs), 'pack')}"

        self.notes.check("integrity", look)
        return packs or dict(self.repository.index.packs())

    def _segments(self) -> None:
        missing: list[bytes] = []
        for digest in self.repository.index.segments():
            try:
                read_segment(self.repository.backend, self.repository.keyring, digest)
            except ObjectNotFound:
                missing.append(digest)
            except (CorruptedBackup, ObjectUnreadable) as error:
                self.notes.find("integrity", index_name(digest), error, _INDEX_HINT)
        if missing:  # a collection replaces segments: those that count are listed
            self.repository.reload_index()
        for digest in set(missing).intersection(self.repository.index.segments()):
            self.notes.find("integrity", index_name(digest), f"{index_name(digest)} is missing", _INDEX_HINT)

    def _existence(self, packs: dict[int, PackInfo]) -> None:
        sizes = {}
        for prefix in ("packs/", "meta/"):
            for info in self.repository.backend.list(prefix):
                if not is_digest(info.name.rpartition("/")[2]):
                    self.notes.find("integrity", info.name, "a foreign object lies in the repository")
                sizes[info.name] = info.size
        missing: list[PackInfo] = []
        for pack in packs.values():
            size = sizes.get(pack_name(pack.kind, pack.digest))
            if size is None:
                missing.append(pack)
            elif size != pack.size:
                self.bad.tell("integrity", *key_of(pack), _other_size(size, pack.size), PACK_HINT)
        self.bad.tell_missing("integrity", map(key_of, missing), GONE_HINT)

    def _cold_tier(self, packs: dict[int, PackInfo]) -> None:
        """The store of the cold tier holds what is noted about it; or it is away, and nothing is known."""
        tiered = self.repository.tiered
        if tiered is None:
            return
        noted = tiered.only_cold()
        if not tiered.cold.is_attached():
            size = format_size(sum(info.size for info in noted.values()))
            self.notes.warn(
                "integrity",
                tiered.cold.address,
                f"this cold tier is not attached: {len(noted)} packs with {size} were not looked at",
                "attach it and verify again",
            )
            return
        there = tiered.really_cold()
        missing: list[PackInfo] = []
        for pack in packs.values():
            name = pack_name(pack.kind, pack.digest)
            if name not in noted:
                continue
            if name not in there:
                missing.append(pack)
            elif there[name].size != noted[name].size:
                self.bad.tell("integrity", *key_of(pack), _other_size(there[name].size, noted[name].size), PACK_HINT)
        self.bad.tell_missing("integrity", map(key_of, missing), GONE_HINT, "this pack is missing in the cold tier")


def _other_size(found: int, expected: int) -> str:
    return f"this pack has {found} bytes, not {expected}"

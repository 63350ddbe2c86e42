"""Reading what is stored: packs, or a part of them chosen anew each time, are authenticated, decoded and hashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from backstay.core.events import EventSink, Progress, Started, Warned
from backstay.core.quantities import format_count, format_size, plural
from backstay.errors import ObjectNotFound
from backstay.operations.tiers.cold_packs import ColdPacks
from backstay.operations.verify.bad_packs import BadPacks
from backstay.operations.verify.notes import Notes
from backstay.operations.verify.objects import PACK_HINT
from backstay.operations.verify.packs import Checked, PackChecks
from backstay.repository.format import pack_name
from backstay.repository.index.index import PackInfo
from backstay.repository.repository import Repository

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(slots=True)
class Reading:
    """The check of data. `part` of it is read, 0 to 1; `packs` and `bytes` count what was."""

    repository: Repository
    notes: Notes
    bad: BadPacks
    events: EventSink
    part: float
    packs: int = 0
    bytes: int = 0

    def integrity(self, packs: dict[int, PackInfo]) -> None:
        """Read packs, or the part of them that was asked for."""
        chosen = self._readable(self.sample(packs))
        if not chosen:
            return

        def look() -> str:
            total = sum(pack.size for pack in chosen.values())
            self.events(Started(operation="read packs", total_files=len(chosen), total_bytes=total))
            checks = PackChecks(self.repository, warn=lambda message: self.events(Warned(message=message)))
            for checked in checks.run(list(chosen.values())):
                self._note_pack(checked)
            return f"{format_count(len(chosen))} of {plural(len(packs), 'pack')} read, decrypted and decoded"

        self.notes.check("integrity", look)

    def sample(self, objects: dict[_Key, _Value]) -> dict[_Key, _Value]:
        """What to read of packs or other objects: all, or a part of them chosen anew each time."""
        if self.part >= 1:
            return objects
        count = round(len(objects) * self.part)
        if self.part > 0:
            count = max(1, count)
        ranked = sorted((self.repository.environment.random(8), at) for at in range(len(objects)))
        chosen = {at for _, at in ranked[:count]}
        return {key: value for at, (key, value) in enumerate(objects.items()) if at in chosen}

    def _readable(self, packs: dict[int, PackInfo]) -> dict[int, PackInfo]:
        """Those that can be read now; frozen ones are told. Raises TierNotAttached."""
        cold = ColdPacks(self.repository)
        for number in packs:
            cold.need_pack(number)
        need = cold.needed()
        if need is None or cold.place is None:
            return packs
        cold.place.require_attached(need)
        frozen = {*need.frozen, *need.thawing}
        if frozen:
            self.notes.warn(
                "integrity",
                need.address,
                f"{len(frozen)} packs with {format_size(need.bytes_to_wait_for)} are frozen and were not read",
                "a restore thaws what it needs; `backstay tier recall` brings back all of a cold tier",
            )
        return {number: info for number, info in packs.items() if pack_name(info.kind, info.digest) not in frozen}

    def _note_pack(self, checked: Checked) -> None:
        expected = checked.expected
        if isinstance(checked.error, ObjectNotFound):
            self.bad.tell_missing("integrity", [(expected.kind, expected.digest)], PACK_HINT)
        elif checked.error is not None:
            self.bad.tell("integrity", expected.kind, expected.digest, checked.error, PACK_HINT)
        self.packs += 1
        self.bytes += expected.size
        self.events(Progress(files=self.packs, bytes=self.bytes))

"""Packs that are not what the index says, each told once; not those that a collection deleted meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from backstay.errors import BackstayError
from backstay.operations.findings import Check
from backstay.operations.verify.notes import Notes
from backstay.repository.format import RecordKind, pack_name
from backstay.repository.index.index import PackInfo
from backstay.repository.repository import Repository


@dataclass(slots=True)
class BadPacks:
    """`digests` are all that were told."""

    repository: Repository
    notes: Notes
    digests: set[bytes] = field(default_factory=set)

    def tell(self, check: Check, kind: RecordKind, digest: bytes, error: BackstayError | str, hint: str) -> None:
        """A pack that is there, and another than it should be."""
        if digest not in self.digests:
            self.digests.add(digest)
            self.notes.find(check, pack_name(kind, digest), error, hint)

    def tell_missing(
        self, check: Check, packs: Iterable[tuple[RecordKind, bytes]], hint: str, message: str = "this pack is missing"
    ) -> None:
        """Packs that a store does not have; a verdict comes before what it deletes, so that it is there by now."""
        missing = [(kind, digest) for kind, digest in packs if digest not in self.digests]
        if not missing:
            return
        collections = self.repository.collections
        collections.refresh()
        deleted, _ = collections.exclusions()
        for kind, digest in missing:
            if digest not in deleted:
                self.tell(check, kind, digest, message, hint)


def key_of(pack: PackInfo) -> tuple[RecordKind, bytes]:
    """How a pack is told."""
    return pack.kind, pack.digest

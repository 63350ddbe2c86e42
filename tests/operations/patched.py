"""Snapshots whose large files are patches of what they were before."""

from __future__ import annotations

import msgspec

from backstay.codec.digest import sha256
from backstay.core.pipeline import Workers
from backstay.operations.snapshots.rewrite import Damage, SnapshotRewriter
from backstay.repository.blobs.contents import Change, PlainStream
from backstay.repository.blobs.patches import PatchWriter, worthwhile
from backstay.repository.nodes import Content, Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest

PIECE = 32 << 10


class _Patching(SnapshotRewriter):
    """Writes a snapshot anew in which one byte of each 32 KiB of a large file is another."""

    has_digests = True

    def _carry(self, node: Node, content: Content) -> Content:
        super()._carry(node, content)
        base = PlainStream(content, self._reader)
        if base.size < PIECE:
            return content
        made = self._writer, self._repository.keyring.chunk_ids, self._repository.listing_chunker
        patch, whole = PatchWriter(*made), bytearray()
        for at in range(0, base.size, PIECE):
            length = min(PIECE, base.size - at)
            was = base.read(at, length)
            now = bytearray(was)
            now[length // 2] ^= 0xFF
            whole += now
            packed = worthwhile(now, was)
            if packed is not None:
                patch.add(Change(at, length, at, length, made[1].of(now), packed))
            else:
                whole[at:] = was  # the end, too short to save anything
        node.sha256 = sha256(whole) if self.has_digests else None
        return patch.finish(base.size, content)


def patch_snapshot(repository: Repository, ulid: str, *, has_digests: bool = True) -> str:
    """One more snapshot: the same tree, with patched files; its id."""
    old = repository.snapshots.get(ulid)
    with repository.begin_session() as session, Workers(1, "seal") as workers:
        writer = repository.writer(workers)
        patching = _Patching(repository, writer, old, Damage())
        patching.has_digests = has_digests
        rewritten = patching.run()
        writer.flush()
        repository.index.write(writer.take_packs())
        writer.close()
        new: Manifest = msgspec.structs.replace(
            old,
            id=session.id,
            root=rewritten.root,
            stat_stream=rewritten.stat_stream,
            previous=old.id,
            previous_digest=repository.snapshots.digest(old.id),
            packs=tuple(sorted({info.digest for _, info in repository.index.packs()})),
        )
        with session.deciding():
            repository.snapshots.commit(new)
    return new.id

"""A snapshot that refers to values, as the owner of a graph makes one, but without a graph."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.node_tree import NodeTree
from backstay.repository.values.writing import writing_values


def refer(repository: Repository, values: list[bytes], *, graph: str = "test") -> Manifest:
    """Announce it, store the list of values, and commit."""
    text = "".join(f"{digest}\n" for digest in sorted(sha256(value).hexdigest() for value in values)).encode()
    return refer_by(repository, {b"values.txt": text}, graph=graph)


def refer_by(repository: Repository, files: dict[bytes, bytes], *, graph: str = "test") -> Manifest:
    """The same with any files."""
    cas = ContentAddressableStorage(repository)
    with writing_values(repository) as writer:
        cas.intend(writer.session.id)
        nodes = {}
        for name, text in files.items():
            digest, size, content = writer.put([text])
            nodes[name] = Node(name, 0o100644, 0, 0, "", "", size, 0, content, digest)
        root, stats, totals = NodeTree(nodes, mtime_ns=0).write(repository, writer._writer)
        writer._writer.flush()
        writer._index_settled()
        manifest = msgspec.structs.replace(writer._manifest(root, stats, totals, {}), source=f"graph:{graph}")
        with writer.session.deciding():
            writer.commit(manifest)
    return manifest

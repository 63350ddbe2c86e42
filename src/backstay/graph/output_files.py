"""Stores the outputs of a graph that lie as files, so that a snapshot can name them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from backstay.core.quantities import plural
from backstay.errors import NotFound, OutputMismatch
from backstay.graph.metadata_graph import MetadataGraph
from backstay.repository.cas import ContentAddressableStorage

_TOLD = 5


def store_files(graph: MetadataGraph, directory: Path, values: ContentAddressableStorage) -> int:
    """Store the files of completed nodes below a directory, but for those whose values are there; how many were stored.

    All of them count together, or none. Raises OutputMismatch when files are not the outputs that the graph says,
    NotFound when one or the directory is not there.
    """
    if not directory.is_dir():  # looked at first: where no value is missing, nothing of it would be
        raise NotFound(f"there is no directory {directory}", hint="name the one that the paths of the nodes begin in")
    files = {
        node.hash: directory / node.metadata.path
        for node in graph
        if node.status == "completed" and node.hash is not None and node.metadata.path is not None
    }
    missing = values.missing(files)
    with values.batch() as batch:
        wrong = [str(files[key]) for key in missing if batch.store(files[key]) != key]
        if wrong:
            raise _mismatch(graph.name, wrong)
    return len(missing)


def _mismatch(name: str, wrong: Iterable[str]) -> OutputMismatch:
    paths = [*wrong]
    rest = [f"… {len(paths) - _TOLD} more"] if len(paths) > _TOLD else []
    return OutputMismatch(
        f"{plural(len(paths), 'file is', 'files are')} not what graph {name} says",
        cause=", ".join([*paths[:_TOLD], *rest]),
        hint="write the graph anew from the files as they are now",
    )

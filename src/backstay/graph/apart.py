"""Files of a graph are never put into the repository that they come from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from backstay.errors import InvalidRequest
from backstay.graph.model import Node
from backstay.repository.repository import Repository


def require_apart(repository: Repository, directory: Path, nodes: Iterable[Node]) -> None:
    """See that neither a directory nor a file of a node below it lies in the repository. Raises InvalidRequest."""
    places = [Path(os.path.realpath(place)) for place in repository.local_places()]
    root = Path(os.path.realpath(directory))
    for place in places:
        if root.is_relative_to(place):
            raise _inside(directory)
        if place.is_relative_to(root):
            for node in nodes:
                if node.metadata.path is not None and (root / node.metadata.path).is_relative_to(place):
                    raise _inside(directory / node.metadata.path)


def _inside(path: Path) -> InvalidRequest:
    return InvalidRequest(
        f"{path} lies inside the repository",
        cause="restored files would be taken for objects, or take their places",
        hint="choose a directory outside of the repository",
    )

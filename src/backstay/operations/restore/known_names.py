"""Which names of a target's inodes a restore knows: what others share with it must not get a snapshot's attributes."""

from __future__ import annotations

import os
from collections import Counter
from typing import Final, TypeAlias

from backstay.repository.nodes import Node

STAYS_SHARED: Final = (
    "its attributes differ from the snapshot and were left alone: it is one file with another name, which would get "
    "them too; --conflict overwrite makes it a file of its own"
)

_Inode: TypeAlias = tuple[bytes, int, int]


class KnownNames:
    """Names that hold what the snapshot says, counted by link group and inode; an item without a group is one name."""

    def __init__(self) -> None:
        self._counts: Counter[_Inode] = Counter()
        self._told: set[_Inode] = set()

    def add(self, node: Node, info: os.stat_result) -> None:
        """One more name of an inode."""
        if node.link_group is not None and info.st_nlink > 1:
            self._counts[_inode(node.link_group, info)] += 1

    def are_all(self, node: Node, info: os.stat_result) -> bool:
        """Whether the inode has no other names, so that whatever it gets is meant for all that it is."""
        if info.st_nlink < 2:
            return True
        return node.link_group is not None and info.st_nlink <= self._counts[_inode(node.link_group, info)]

    def is_first(self, node: Node, info: os.stat_result) -> bool:
        """Whether nobody was told yet about the inode of a link group."""
        if node.link_group is None:
            return True
        inode = _inode(node.link_group, info)
        is_new = inode not in self._told
        self._told.add(inode)
        return is_new

    def forget(self, node: Node, info: os.stat_result) -> None:
        """One of an inode's names becomes a new file: from now on it cannot be told whose the others are."""
        if node.link_group is not None:
            self._counts.pop(_inode(node.link_group, info), None)


def _inode(links: bytes, info: os.stat_result) -> _Inode:
    return links, info.st_dev, info.st_ino

"""What the snapshots of each source are named, which no other source may have: retention and rights go by it."""

from __future__ import annotations

from collections.abc import Iterator

from backstay.control.policies.document import Document, Key
from backstay.control.policies.policy import PolicyFile
from backstay.errors import Mistake


def shared_names(document: Document, content: PolicyFile) -> Iterator[Mistake]:
    """The mistake of each source whose snapshots would be named as those of one before it."""
    first: dict[str, Key] = {}
    for policy, settings in content.policies.items():
        for number, origin in enumerate(settings.sources):
            name, key = origin.snapshot_name(policy), ("policies", policy, "sources", number)
            other = document.mistake(first.setdefault(name, key), "")
            if first[name] != key:
                yield document.mistake(
                    key,
                    f"its snapshots would be named {name!r}, as those of {other.key} in line {other.line}",
                    "the retention of one would delete those of the other: give one another `name`",
                )

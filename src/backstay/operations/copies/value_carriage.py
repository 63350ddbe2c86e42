"""Values that snapshots of graphs refer to go with them into another repository, or onto a medium."""

from __future__ import annotations

from collections.abc import Iterable

from backstay.core.events import EventSink, Started, Warned, finished
from backstay.core.quantities import plural
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.values.ids import value_id
from backstay.repository.values.references import named_values, refers_to_values


def carry_values(
    source: Repository, target: Repository, snapshots: Iterable[Manifest], events: EventSink, *, intent: str | None
) -> int:
    """Give the target the values that these snapshots of the source refer to; how many it lacked.

    They are durable there when this returns. `intent` is the announced session of the snapshot that will refer to
    them, so that nobody removes them before it is committed. A value that the source lost itself is warned of: a graph
    can be restored without. Raises CorruptedBackup when one is damaged.
    """
    chosen = [manifest for manifest in snapshots if refers_to_values(manifest)]
    if not chosen:
        return 0
    here, there = ContentAddressableStorage(source), ContentAddressableStorage(target)
    if intent is not None:
        there.intend(intent)
    carried = 0
    for manifest in chosen:
        events(Started(operation="copy values"))
        keys = [*map(value_id, named_values(source, manifest))]
        carried += there.copy_from(here, keys)
        if lost := there.missing(keys):
            told = plural(len(lost), "value")
            events(Warned(message=f"{told} of snapshot {manifest.id} are not there, such as {lost[0]}"))
        finished(events, "copy values")
    return carried

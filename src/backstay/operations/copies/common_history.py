"""Whether a copy has the history of its repository: else what is sent could not be read there."""

from __future__ import annotations

from backstay.errors import CorruptedBackup, InvalidRequest, ObjectNotFound
from backstay.repository.collection.garbage import stored_packs
from backstay.repository.format import epoch_name
from backstay.repository.logs.collections import CollectionLog, VerdictRecord
from backstay.repository.repository import Repository
from backstay.storage.backend import StorageBackend


def require_common_keys(repository: Repository, target: StorageBackend) -> None:
    """Raises InvalidRequest when an epoch has another key in a copy: somebody who wrote there began it, too.

    Sizes do not tell, so each is read: one request for each epoch, of which there are four a year. What else lies under
    the same name with other bytes (marks, holds, drops) says the same whoever wrote it.
    """
    for epoch in repository.keyring.epochs:
        name = epoch_name(epoch.number)
        try:
            there = repository.keyring.decode_epoch(epoch.number, target.retrieve(name))
        except (ObjectNotFound, CorruptedBackup):  # it is to be sent, or for `verify` of the copy to tell
            continue
        if there.signer.public != epoch.signer.public:
            raise _own_history(target, f"{name} is another key there, and what is sealed with ours could not be read")


def require_common_collections(repository: Repository, target: StorageBackend) -> None:
    """Raises InvalidRequest where a collection of a copy has deleted packs that the repository has.

    Its record forbids them there for good, so that what is sent would not be found. Collections are numbered, and those
    that both have are a beginning of both: looked at from the last one on, mostly the first look is the only one.
    """
    ours, theirs = repository.collections, CollectionLog(target, repository.keyring)
    ours.refresh()
    theirs.refresh()
    deleted: set[bytes] = set()
    for number in range(theirs.last, 0, -1):
        there = _verdict(theirs, number)
        if there is None:
            continue
        if number <= ours.last and _verdict(ours, number) == there:
            break
        deleted |= set(there.deleted)
    if deleted and any(pack in deleted for pack, _ in stored_packs(repository.backend)):
        raise _own_history(target, "`backstay gc` ran there, and deleted for good what the repository has")


def _verdict(log: CollectionLog, number: int) -> VerdictRecord | None:
    """What a collection decided; one that cannot be read forbids nothing, and is for `verify` to tell."""
    try:
        return log.verdict(number)
    except (ObjectNotFound, CorruptedBackup):
        return None


def _own_history(target: StorageBackend, cause: str) -> InvalidRequest:
    return InvalidRequest(
        f"{target.url} has a history of its own",
        cause=cause,
        hint="begin a new copy in an empty place; snapshots that only the old one has go into a repository "
        "with other keys by `backstay -r COPY copy ID --to REPO`",
    )

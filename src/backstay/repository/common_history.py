"""Whether a copy has the history of its repository: else what is sent could not be read there."""

from __future__ import annotations

import re
from typing import Final

from backstay.errors import CorruptedBackup, InvalidRequest, ObjectNotFound
from backstay.repository.format import epoch_name
from backstay.repository.keys.keyring import Keyring
from backstay.repository.logs.collections import CollectionLog, VerdictRecord
from backstay.repository.packs.stored import stored_packs
from backstay.repository.records import names_repository
from backstay.storage.backend import StorageBackend

_EPOCH: Final = re.compile(r"keys/epochs/(\d{8,})")


def require_common_history(keyring: Keyring, first: StorageBackend, copy: StorageBackend) -> None:
    """Raises InvalidRequest when somebody wrote into a copy by itself, so that it went another way than the first one.

    What is listed is listed there first, so that a writer at work, who stores in the first one first, looks like none.
    """
    require_common_keys(keyring, first, copy)
    _require_common_collections(keyring, first, copy)


def require_common_keys(keyring: Keyring, first: StorageBackend, copy: StorageBackend) -> None:
    """Raises InvalidRequest when a copy has an epoch that the first one lacks, or another key in one that both have.

    Sizes do not tell, so the newest that can be read in both is: whoever begins an epoch of their own begins the next.
    What else lies under the same name with other bytes (marks, holds, drops) says the same whoever wrote it.
    """
    theirs = _epochs(copy)
    if alone := sorted(number for number in theirs - _epochs(first) if _is_own(keyring, copy, number)):
        raise _own_history(
            copy,
            f"{epoch_name(alone[0])} is a key that {first.url} lacks",
            f"if it was lost there, bring it back with `backstay repair packs --from-copy {copy.url}`; else ",
        )
    for number in sorted(theirs, reverse=True):
        name = epoch_name(number)
        try:
            here, there = (keyring.decode_epoch(number, store.retrieve(name)) for store in (first, copy))
        except (ObjectNotFound, CorruptedBackup):  # damage is for `verify` to tell
            continue
        if here.signer.public != there.signer.public:
            raise _own_history(copy, f"{name} is another key there, and what is sealed with ours could not be read")
        return


def _is_own(keyring: Keyring, store: StorageBackend, number: int) -> bool:
    """Whether a key is one of this repository: what an interrupted creation left counts nowhere."""
    try:
        return names_repository(store.retrieve(epoch_name(number)), keyring.repository)
    except ObjectNotFound:
        return False


def _epochs(store: StorageBackend) -> set[int]:
    found = (_EPOCH.fullmatch(info.name) for info in store.list("keys/epochs/"))
    return {int(match[1]) for match in found if match is not None}


def _require_common_collections(keyring: Keyring, first: StorageBackend, copy: StorageBackend) -> None:
    """Raises InvalidRequest where a collection of a copy has deleted packs that the first one has.

    Its record forbids them there for good, so that what is sent would not be found. Collections are numbered, and those
    that both have are a beginning of both: looked at from the last one on, mostly the first look is the only one.
    """
    ours, theirs = CollectionLog(first, keyring), CollectionLog(copy, keyring)
    theirs.refresh()
    ours.refresh()
    deleted: set[bytes] = set()
    for number in range(theirs.last, 0, -1):
        there = _verdict(theirs, number)
        if there is None:
            continue
        if number <= ours.last and _verdict(ours, number) == there:
            break
        deleted |= set(there.deleted)
    if deleted and any(pack in deleted for pack, _ in stored_packs(first)):
        ran = "`backstay gc` or `backstay repair packs` ran there"
        raise _own_history(copy, f"{ran}, and deleted for good what {first.url} has")


def _verdict(log: CollectionLog, number: int) -> VerdictRecord | None:
    """What a collection decided; one that cannot be read forbids nothing, and is for `verify` to tell."""
    try:
        return log.verdict(number)
    except (ObjectNotFound, CorruptedBackup):
        return None


def _own_history(copy: StorageBackend, cause: str, first_of_all: str = "") -> InvalidRequest:
    return InvalidRequest(
        f"{copy.url} has a history of its own",
        cause=cause,
        hint=f"{first_of_all}begin a new copy in an empty place; snapshots that only the old one has go into "
        "a repository with other keys by `backstay -r COPY copy ID --to REPO`",
    )

"""Whether a copy has the data keys of its repository: else what is sent could not be read there."""

from __future__ import annotations

from backstay.errors import CorruptedBackup, InvalidRequest, ObjectNotFound
from backstay.repository.format import epoch_name
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
            raise InvalidRequest(
                f"{target.url} has a history of its own",
                cause=f"{name} is another key there, and what is sealed with ours could not be read",
                hint="begin a new copy in an empty place; snapshots that only the old one has go into a repository "
                "with other keys by `backstay -r COPY copy ID --to REPO`",
            )

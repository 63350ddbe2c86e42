"""Attestations of snapshots as they are stored: in clear, so that an auditor without keys can check them.

An attestation speaks of the stored bytes of a snapshot, and so of one repository and its bit-identical copies. Those in
a store prove nothing by lying there: each reader judges them by a policy of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from backstay.codec.digest import sha256
from backstay.core.clock import Clock
from backstay.errors import BackstayError, BadAttestation, ObjectExists, ObjectNotFound
from backstay.repository.format import ATTESTATIONS, REPO, RepoHeader, attestation_name, snapshot_name
from backstay.storage.backend import ObjectInfo, StorageBackend
from backstay.storage.copies import retrieve_valid
from backstay.trust.attestation import MAX_ENVELOPE, Statement, attested_now, open_statement
from backstay.trust.quorum import QuorumPolicy, Standing
from backstay.trust.validators import Validator

_NAME: Final = re.compile(rf"{ATTESTATIONS}([0-7][0-9a-hjkmnp-tv-z]{{25}})/([0-9a-f]{{64}})")


class AttestationStore:
    """The attestations of a repository. It needs no key, only the store."""

    def __init__(self, backend: StorageBackend, repository: str) -> None:
        self._backend, self._repository = backend, repository

    @classmethod
    def of_store(cls, backend: StorageBackend) -> AttestationStore:
        """For an auditor: of whatever repository lies in this store. Raises ObjectNotFound, CorruptedBackup."""
        return cls(backend, RepoHeader.decode(backend.retrieve(REPO)).uuid)

    def attest(self, snapshot: str, digest: bytes, validator: Validator, clock: Clock) -> bool:
        """Sign that the stored bytes of this SHA-256 are a good snapshot; False if this validator has done so before.

        One object, created as a whole: a crash leaves it there or not. What lies under its name and is no attestation
        of these bytes is replaced.
        """
        data = validator.sign(
            repository=self._repository, snapshot=snapshot, digest=digest, attested=attested_now(clock.now())
        )
        name = attestation_name(snapshot, validator.public.key_id)
        try:
            self._backend.store(name, data)
        except ObjectExists:
            if self._is_good(name, digest):
                return False
            self._backend.store(name, data, overwrite=True)
        return True

    def digest(self, snapshot: str) -> bytes:
        """SHA-256 of the stored bytes of a snapshot: what is attested. Raises ObjectNotFound."""
        return sha256(self._backend.retrieve(snapshot_name(snapshot)))

    def statements(
        self, snapshot: str, on_damage: Callable[[str, BackstayError], None] | None = None
    ) -> Iterator[Statement]:
        """The whole attestations of a snapshot, whoever made them; what is none counts for nothing, and is told."""
        for info in list(self._backend.list(f"{ATTESTATIONS}{snapshot}/")):
            try:
                yield self._read(info)
            except ObjectNotFound:
                continue
            except BadAttestation as error:
                if on_damage is not None:
                    on_damage(info.name, error)

    def standing(self, snapshot: str, policy: QuorumPolicy, *, digest: bytes | None = None) -> Standing:
        """How far a snapshot has come by a policy. `digest` spares reading it again. Raises ObjectNotFound."""
        return policy.judge(
            self.statements(snapshot),
            repository=self._repository,
            snapshot=snapshot,
            digest=(digest or self.digest(snapshot)).hex(),
        )

    def problems(self) -> Iterator[tuple[str, BackstayError]]:
        """Every object among the attestations that is none, or that speaks of other bytes than are stored."""
        digests: dict[str, str | None] = {}
        for info in list(self._backend.list(ATTESTATIONS)):
            try:
                statement = self._read(info)
                if statement.snapshot not in digests:
                    digests[statement.snapshot] = self._digest_if_there(statement.snapshot)
                if (stored := digests[statement.snapshot]) != statement.digest:
                    yield info.name, _other_bytes(stored)
            except ObjectNotFound:
                continue
            except BadAttestation as error:
                yield info.name, error

    def check(self, name: str, data: bytes) -> Statement:
        """What an object says, if it belongs under its name in this repository. Raises BadAttestation."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise BadAttestation("a foreign object lies among the attestations", cause=name[:200])
        statement = open_statement(data)
        if (statement.snapshot, statement.key_id) != match.groups():
            raise BadAttestation(f"{name} attests another snapshot, or is of another key")
        if statement.repository != self._repository:
            raise BadAttestation(f"{name} speaks of another repository", cause=statement.repository[:80])
        return statement

    def snapshots(self) -> set[str]:
        """Ids of the snapshots that attestations lie here of."""
        matches = (_NAME.fullmatch(info.name) for info in self._backend.list(ATTESTATIONS))
        return {match[1] for match in matches if match is not None}

    def forget(self, snapshot: str) -> None:
        """Remove those of a snapshot that was dropped."""
        for info in list(self._backend.list(f"{ATTESTATIONS}{snapshot}/")):
            self._backend.delete(info.name)

    def _read(self, info: ObjectInfo) -> Statement:
        if info.size > MAX_ENVELOPE:  # before memory is taken for it
            raise BadAttestation(f"{info.name[:200]} is too large for an attestation", cause=f"{info.size} bytes")
        return retrieve_valid(self._backend, info.name, lambda data: self.check(info.name, data))

    def _is_good(self, name: str, digest: bytes) -> bool:
        try:
            return self.check(name, self._backend.retrieve(name)).digest == digest.hex()
        except (BadAttestation, ObjectNotFound):
            return False

    def _digest_if_there(self, snapshot: str) -> str | None:
        try:
            return self.digest(snapshot).hex()
        except ObjectNotFound:
            return None


def _other_bytes(stored: str | None) -> BadAttestation:
    if stored is None:
        return BadAttestation("it attests a snapshot that is not there", hint="put the snapshot back from a copy")
    return BadAttestation(
        "it attests other bytes than the snapshot has now",
        cause="the snapshot's object was replaced, or the attestation was",
        hint="compare both with a copy",
    )

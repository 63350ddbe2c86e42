"""A repository: create, open, close; what hands out snapshots, blobs, sessions and collections."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from backstay.codec.chunker import FILES, LISTINGS, ContentDefinedChunker
from backstay.codec.compression import Compressor
from backstay.codec.digest import sha256
from backstay.core.arguments import checks_arguments
from backstay.core.clock import Clock, SystemClock
from backstay.core.ids import Random
from backstay.core.pipeline import Workers
from backstay.errors import (
    BackstayError,
    InvalidRequest,
    NoRepository,
    ObjectExists,
    ObjectNotFound,
    RepositoryExists,
    StorageMissing,
)
from backstay.repository.attestations import AttestationStore
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.blobs.writer import PACK_TARGET, BlobWriter
from backstay.repository.common_history import require_common_history
from backstay.repository.format import FORMAT, REPO, SUITE, RepoHeader
from backstay.repository.index.index import Index, MemoryPlaceMap, PlaceMap
from backstay.repository.keys.keyring import Keyring
from backstay.repository.keys.slots import SlotStore
from backstay.repository.keys.unlocking import has_header, read_header
from backstay.repository.logs.collections import CollectionLog
from backstay.repository.logs.tiers import refuse_cold_tier, with_tiers
from backstay.repository.logs.values import ValuesLog
from backstay.repository.packs.stored import stored_packs
from backstay.repository.sessions.lease import Lease
from backstay.repository.sessions.session import Process, Session
from backstay.repository.snapshots.store import Manifest, SnapshotStore
from backstay.repository.wal.store import WalStore
from backstay.storage.assembly import local_places
from backstay.storage.backend import StorageBackend
from backstay.storage.cold_store import OpenStore, reach
from backstay.storage.fitness import require_fit
from backstay.storage.local import LocalStorage
from backstay.storage.registry import local_path, open_backend
from backstay.storage.tiered import MOVABLE, Tiered
from backstay.trust.secrets import Secret
from backstay.trust.slots import Argon2Cost

_OWN: Final = ("snapshots/", "index/", "packs/", "meta/", "gc/", "drops/", "wal/", "values/")
DEFAULT_THREADS: Final = max(2, min(8, os.cpu_count() or 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a repository takes from outside: time, randomness, this process, threads, and the store of its cold tier."""

    clock: Clock = field(default_factory=SystemClock)
    random: Random = os.urandom
    process: Process | None = None
    threads: int = DEFAULT_THREADS
    pack_target: int = PACK_TARGET
    open_cold: OpenStore = reach


@checks_arguments
class Repository:
    """An open repository; use it as a context manager, from one thread."""

    def __init__(
        self,
        backend: StorageBackend,
        header: RepoHeader,
        keyring: Keyring,
        *,
        cache: Path | None,
        environment: Environment,
        compressor: Compressor,
    ) -> None:
        self.backend, self.header, self.keyring, self.environment = backend, header, keyring, environment
        self.clock = environment.clock
        self.process = environment.process or Process.current()
        self.compressor = compressor
        self.cache = cache / header.uuid if cache is not None else None
        self._tolerance = keyring.tolerance
        self.snapshots = SnapshotStore(backend, keyring, self._tolerance)
        self.collections = CollectionLog(backend, keyring)
        self.slots = SlotStore(backend, keyring)
        self.wal = WalStore(backend, keyring)
        self.attestations = AttestationStore(backend, header.uuid)
        self.values_log = ValuesLog(backend, keyring, environment.clock, environment.random)
        self.file_chunker = ContentDefinedChunker(FILES, keyring.chunker_secret)
        self.listing_chunker = ContentDefinedChunker(LISTINGS, keyring.chunker_secret)
        self._index: Index | None = None
        self._reader: BlobReader | None = None
        self._is_fit = False
        self._lease: Lease | None = None
        backend.examine_copies(self._examine_copy)

    @classmethod
    def create(
        cls,
        backend: StorageBackend | str | Path,
        secret: Secret | None = None,
        *,
        password: str | None = None,
        cache: Path | None = None,
        environment: Environment | None = None,
        compressor: Compressor | None = None,
        cost: Argon2Cost | None = None,
        note: str = "created with the repository",
    ) -> Self:
        """Create a repository where there is none, at a backend, a path or an address, for a secret or a password.

        Raises RepositoryExists when there is one, InvalidRequest, also for a place with other things under its names.

        Order: slot, epoch, then repo.json, whose atomic create decides; a crash before it leaves objects that the
        next `create` ignores, because a slot is bound to its own repo.json.
        """
        environment = environment or Environment()
        secret = _secret(secret, password)
        backend = _backend(backend, create=True)
        if has_header(backend):
            raise _exists(backend)
        for copy in backend.copies():
            _refuse_foreign(copy)
        refuse_cold_tier(backend)
        require_fit(backend)
        header = RepoHeader(
            format=FORMAT,
            uuid=environment.random(16).hex(),
            features=(),
            suite=SUITE,
            created=environment.clock.now().isoformat(timespec="seconds"),
        )
        encoded, root = header.encode(), environment.random(32)
        keyring = Keyring(backend, root, bytes.fromhex(header.uuid), random=environment.random)
        SlotStore(backend, keyring).add_first(
            secret, sha256(encoded), note=note, created=header.created, cost=cost, random=environment.random
        )
        keyring.begin_epoch(environment.clock)
        try:
            backend.store(REPO, encoded)
        except ObjectExists as error:
            raise _exists(backend) from error
        return cls(
            backend,
            header,
            keyring,
            cache=cache,
            environment=environment,
            compressor=compressor or Compressor(),
        )

    @classmethod
    def open(
        cls,
        backend: StorageBackend | str | Path,
        secret: Secret | None = None,
        *,
        password: str | None = None,
        cache: Path | None = None,
        environment: Environment | None = None,
        compressor: Compressor | None = None,
    ) -> Self:
        """Open a repository, at a backend, a path or an address, with a secret or a password.

        Raises NoRepository, UnsupportedFormat, WrongKey, CorruptedBackup, InvalidRequest.
        """
        secret = _secret(secret, password)
        backend = _backend(backend, create=False)
        unlocked = read_header(backend, secret)
        return cls.unlocked(backend, unlocked, cache=cache, environment=environment, compressor=compressor)

    @classmethod
    def unlocked(
        cls,
        backend: StorageBackend,
        unlocked: tuple[RepoHeader, bytes],
        *,
        cache: Path | None = None,
        environment: Environment | None = None,
        compressor: Compressor | None = None,
    ) -> Self:
        """The repository whose repo.json and root key were read already. Raises UnsupportedFormat, CorruptedBackup."""
        environment = environment or Environment()
        header, root = unlocked
        keyring = Keyring(backend, root, bytes.fromhex(header.uuid), random=environment.random)
        keyring.load()
        return cls(
            with_tiers(backend, keyring, environment.open_cold),
            header,
            keyring,
            cache=cache,
            environment=environment,
            compressor=compressor or Compressor(),
        )

    @property
    def header_digest(self) -> bytes:
        """SHA-256 of repo.json, to which every key slot is bound."""
        return sha256(self.header.encode())

    @property
    def index(self) -> Index:
        """The index, loaded at first use."""
        if self._index is None:
            self.reload_index()
        assert self._index is not None
        return self._index

    def reload_index(self) -> None:
        """See what other processes have written, condemned and deleted meanwhile.

        Collections are listed before the segments: a pack condemned after that listing may still be used, since
        its collector then waits for the session that was announced before. Records of collections that cannot be
        read are in `collections.damaged`: who builds upon packs, or deletes some, has to refuse them.
        """
        self.collections.refresh()
        deleted, condemned = self.collections.exclusions()
        if self._index is None:
            self._index = Index(self.backend, self.keyring, self._place_map())
        self._index.load(deleted=deleted, condemned=condemned)

    def hide_missing_packs(self) -> set[bytes]:
        """Before a backup: packs that are lost, or not whole by their size, must not be built upon; their digests."""
        return self.index.hide_missing({digest: size for digest, (_, size) in stored_packs(self.backend)})

    def findable(self, snapshots: Sequence[Manifest]) -> list[Manifest]:
        """Those of which everything is where the index says, as far as that is known without reading it.

        To be asked after `hide_missing_packs`. Others are not to be built upon: what they need is to be looked up
        chunk by chunk, or stored anew.
        """
        found = [snapshot for snapshot in snapshots if self.index.finds_all(snapshot.packs)]
        if len(found) < len(snapshots):
            self.index.look_again()  # some may be younger than what was read of it
            found = [snapshot for snapshot in snapshots if self.index.finds_all(snapshot.packs)]
        return found

    def _place_map(self) -> PlaceMap:
        if self.cache is None:
            return MemoryPlaceMap()
        from backstay.repository.index.place_map import LmdbPlaceMap

        return LmdbPlaceMap(self.cache / "index")

    @property
    def reader(self) -> BlobReader:
        """Reads chunks."""
        if self._reader is None:
            self._reader = BlobReader(self.backend, self.keyring, self.index, self.reload_index, self._tolerance)
        return self._reader

    def passing_unreadable(self) -> AbstractContextManager[None]:
        """Within, what a disk does not give is as good as damaged, instead of an end to everything."""
        return self._tolerance.passing()

    def _examine_copy(self, first: StorageBackend, copy: StorageBackend) -> None:
        """Before a copy is first written to."""
        require_common_history(self.keyring, first, copy)
        SlotStore(first, self.keyring).remove_from(copy)

    def writer(self, workers: Workers) -> BlobWriter:
        """Stores chunks; call inside an announced session."""
        return BlobWriter(
            self.backend,
            self.keyring,
            self.index,
            workers,
            compressor=self.compressor,
            random=self.environment.random,
            pack_target=self.environment.pack_target,
        )

    def begin_session(self) -> Session:
        """Announce a writer, then look at collections and index: in this order, on which collection relies."""
        self.require_fit()
        self.keyring.begin_epoch_if_due(self.clock)
        session = Session(self.backend, self.keyring, self.clock, process=self.process, random=self.environment.random)
        session.announce()
        self.reload_index()
        try:
            self.collections.refuse_damage()
        except BackstayError:
            session.close()
            raise
        return session

    def require_fit(self) -> None:
        """Before anything is written: see once that the store does what writers rely on, or become the only writer.

        Raises StorageUnfit, RepositoryBusy.
        """
        if self._is_fit:
            return
        if not require_fit(self.backend).atomic_create:
            environment = self.environment
            lease = Lease(
                self.backend,
                self.keyring,
                self.clock,
                process=self.process,
                random=environment.random,
            )
            lease.take()
            self._lease = lease
        self._is_fit = True

    def confirm_lease(self) -> None:
        """Before a commit: see that this is still the only writer, if it must be. Raises RepositoryBusy."""
        if self._lease is not None:
            self._lease.confirm()

    @property
    def tiered(self) -> Tiered | None:
        """The two tiers, where there is a cold one."""
        return self.backend if isinstance(self.backend, Tiered) else None

    def local_places(self) -> list[Path]:
        """The directories of this machine in which it lies, as named, with its copies and its cold tier."""
        places = local_places(self.backend)
        if self.tiered is not None and (cold := local_path(self.tiered.cold.address)) is not None:
            places.append(cold)
        return places

    def distant_packs(self) -> dict[str, int]:
        """The data packs that may not be readable at once, with their sizes: those in a cold tier or an archive."""
        if self.tiered is not None:
            found = self.tiered.only_cold()
        elif self.backend.archive() is not None:
            found = {info.name: info for info in self.backend.list(MOVABLE)}
        else:
            return {}
        return {name: info.size for name, info in found.items()}

    def in_store(self, backend: StorageBackend) -> Self:
        """The same repository as another store has it, in whole or in part, opened with the same keys.

        Raises NoRepository, InvalidRequest when another repository lies there.
        """
        try:
            header = backend.retrieve(REPO)
        except (ObjectNotFound, StorageMissing) as error:
            raise NoRepository(f"there is no repository at {backend.url}", cause=str(error)) from error
        if header != self.header.encode():
            raise InvalidRequest(
                f"{backend.url} holds another repository",
                cause=f"its {REPO} differs",
                hint="`backstay copy --to` moves snapshots between repositories",
            )
        random = self.environment.random
        keyring = Keyring(backend, self.keyring.root, self.keyring.repository, random=random)
        keyring.load()
        return type(self)(
            backend, self.header, keyring, cache=None, environment=self.environment, compressor=self.compressor
        )

    def close(self) -> None:
        self.release()
        self.backend.close()

    def release(self) -> None:
        """Let others write, where there is one writer at a time, and let go of the index.

        Both come back when they are needed; WAL needs neither.
        """
        lease, self._lease, self._is_fit = self._lease, None, False
        if lease is not None:
            with contextlib.suppress(BackstayError):  # one that cannot be given up ends like that of a dead program
                lease.close()
        if self._index is not None:
            self._index.close()
            self._index = None
        self._reader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _backend(place: StorageBackend | str | Path, *, create: bool) -> StorageBackend:
    if isinstance(place, StorageBackend):
        return place
    return LocalStorage(place, create=create) if isinstance(place, Path) else open_backend(place, create=create)


def _secret(secret: Secret | None, password: str | None) -> Secret:
    if secret is not None and password is None:
        return secret
    if password is not None and secret is None:
        return Secret.passphrase(password)
    raise InvalidRequest(
        "no secret was given" if secret is None else "a secret and a password were given",
        cause="one of both opens a repository",
        hint="pass password=…, or a Secret",
    )


def _refuse_foreign(backend: StorageBackend) -> None:
    """Raises InvalidRequest for things under its names: a repository could neither use them nor leave them alone."""
    for prefix in _OWN:
        try:
            found = next(iter(backend.list(prefix)), None)
        except StorageMissing:
            return
        if found is not None:
            raise InvalidRequest(
                f"no repository can be created at {backend.url}",
                cause=f"{found.name} lies there already, which it would take for its own",
                hint=f"name an empty place; if a repository lost its {REPO} there, put that back from a copy",
            )


def _exists(backend: StorageBackend) -> RepositoryExists:
    return RepositoryExists(
        f"there is a repository at {backend.url} already",
        cause=f"{REPO} exists",
        hint="use it, or choose another place",
    )

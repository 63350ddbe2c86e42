"""A repository and all that opens it, for whoever has no command line: the service, and Python programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from backstay.codec.compression import Compressor
from backstay.control.opening import creation
from backstay.control.opening.cache import usable_cache
from backstay.control.opening.location import Location
from backstay.control.opening.secrets import WAYS, find_secret, given_secret, secret_of
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.repository_settings import RepositorySettings, key_file_name, repository_settings
from backstay.core.clock import Clock
from backstay.core.environment import config_directory, data_directory, repository_address
from backstay.errors import BackstayError, CorruptedBackup, InsufficientSpace, StorageUnavailable, WrongKey
from backstay.repository.repository import Environment, Repository
from backstay.storage.assembly import StorageSettings, assemble
from backstay.storage.backend import StorageBackend
from backstay.trust.secrets import Secret

KEY_ADVICE: Final = "`backstay key recovery` prints a key to put away: without it and the key file the backups are lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """A repository by its settings; each `open` gives one of its own, for one thread.

    The secret is that of `password`, else one of the variables BACKSTAY_PASSWORD and its kin, else that of the policy
    file, else that of the key file which the first backup makes. `notice` is told of that one, `warn` if not given.
    """

    location: Location
    settings: RepositorySettings
    environ: Mapping[str, str] = field(repr=False)
    clock: Clock
    warn: Callable[[str], None]
    password: str | None = field(default=None, repr=False)
    notice: Callable[[str], None] | None = None

    @classmethod
    def at(
        cls,
        address: str | None,
        *,
        environ: Mapping[str, str],
        clock: Clock,
        warn: Callable[[str], None],
        compressor: Compressor | None = None,
        password: str | None = None,
        max_size: int | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> Self:
        """The repository at an address; without one that of BACKSTAY_REPO, else the default one."""
        named = address or repository_address(environ)
        settings = RepositorySettings(address=named, compressor=compressor or Compressor(), max_size=max_size)
        return cls._of(settings, environ, clock, warn, password, notice)

    @classmethod
    def of_policies(
        cls,
        loaded: LoadedPolicies,
        *,
        environ: Mapping[str, str],
        clock: Clock,
        warn: Callable[[str], None],
        password: str | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> Self:
        """The repository of a policy file; where that names none, as `at` has it. Raises KeyProviderUnsupported."""
        return cls._of(repository_settings(loaded, environ), environ, clock, warn, password, notice)

    @classmethod
    def _of(
        cls,
        settings: RepositorySettings,
        environ: Mapping[str, str],
        clock: Clock,
        warn: Callable[[str], None],
        password: str | None,
        notice: Callable[[str], None] | None,
    ) -> Self:
        address = settings.address or repository_address(environ)
        config = config_directory(environ)
        if address is None:
            address, made = str(data_directory(environ) / "repository"), config / "default.key"
        else:
            made = config / key_file_name(address)
        key_file = settings.key_file or made
        location = Location(address, key_file, "backstay backup", made.with_suffix(".made"))
        return cls(
            location=location,
            settings=settings,
            environ=environ,
            clock=clock,
            warn=warn,
            password=password,
            notice=notice,
        )

    def without_copies(self) -> Self:
        """The same repository, in the store that decides what is in it alone."""
        return replace(self, settings=replace(self.settings, mirrors=(), quorum=None))

    # -- the first backup

    def prepare(self) -> None:
        """Make the repository if it never was. Raises NoRepository if it was there once and is gone."""
        creation.ensure(_Around(self), self.location)

    def exists(self) -> bool:
        """Whether there is a repository."""
        with self.backend(self.location.address) as backend:
            return creation.has_repository(backend)

    # -- opening

    @contextmanager
    def open(self, *, index: bool = True, grows: bool = False) -> Iterator[Repository]:
        """The repository. Without `index` only snapshots and keys are needed, and nothing of the cache is.

        What `grows` a repository is subject to its size limit; what frees space is not. Raises NoRepository, WrongKey.
        """
        backend = self.backend(self.location.address, mirrors=self.settings.mirrors, grows=grows)
        with self._opened(backend, index=index) as repository:
            yield repository

    def _opened(self, backend: StorageBackend, *, index: bool) -> Repository:
        secret = find_secret(
            given=self.given_secret(),
            key_file=self.location.key_file,
            address=self.location.address,
            otherwise=self._no_secret,
        )
        repository = self._of_cache(backend, secret, usable_cache(self.environ, self.warn) if index else None)
        if not index or repository.cache is None:
            return repository
        try:
            self._load_index(repository)
        except (StorageUnavailable, InsufficientSpace) as error:
            self.warn(f"working without a cache: {error}")
            return self._of_cache(repository.backend, secret, None)
        return repository

    def _of_cache(self, backend: StorageBackend, secret: Secret, cache: Path | None) -> Repository:
        return Repository.open(
            backend,
            secret,
            cache=cache,
            environment=Environment(clock=self.clock),
            compressor=self.settings.compressor,
        )

    def _load_index(self, repository: Repository) -> None:
        """A damaged index is met again by whoever needs it, and some can do without."""
        try:
            repository.reload_index()
        except CorruptedBackup as error:
            self.warn(str(error))

    def given_secret(self) -> Secret | None:
        """What was named on purpose."""
        if self.password is not None:
            return secret_of(self.password)
        if (given := given_secret(self.environ, None)) is not None:
            return given
        return None if self.settings.password is None else secret_of(self.settings.password)

    def _no_secret(self) -> Secret:
        raise self._missing() from None

    def _missing(self) -> BackstayError:
        if not self.exists():
            return creation.absent(self.location)
        return WrongKey(
            f"nothing opens the repository at {self.location.address}",
            cause=f"no password was given, and there is no {self.location.key_file}",
            hint=WAYS.partition(", or give")[0],
        )

    def backend(
        self, address: str, *, mirrors: Sequence[str] = (), create: bool = False, grows: bool = False
    ) -> StorageBackend:
        """The backend of an address with its retries, and the limits and mirrors that were asked for."""
        settings = StorageSettings(
            mirrors=tuple(mirrors),
            quorum=self.settings.quorum if mirrors else None,
            max_size=self.settings.max_size if grows else None,
        )
        return assemble(address, settings, create=create, clock=self.clock, warn=self.warn)


@dataclass(frozen=True, slots=True)
class _Around:
    """An opener as the room sees it that creates repositories."""

    opener: Opener

    @property
    def compressor(self) -> Compressor | None:
        return self.opener.settings.compressor

    @property
    def copies(self) -> Sequence[str]:
        return self.opener.settings.mirrors

    def given_secret(self) -> Secret | None:
        return self.opener.given_secret()

    def backend(self, address: str, *, mirrors: Sequence[str] = (), create: bool = False) -> StorageBackend:
        return self.opener.backend(address, mirrors=mirrors, create=create)

    def unstopped(self) -> AbstractContextManager[None]:
        return nullcontext()  # whoever uses an opener is stopped between its calls

    def warn(self, text: str, /) -> None:
        self.opener.warn(text)

    def made(self, repository: Repository, location: Location, key_file: Path | None) -> None:
        del repository
        if key_file is not None:
            opener = self.opener
            tell = opener.warn if opener.notice is None else opener.notice
            tell(f"made a repository in {location.address}; its key lies in {key_file}. {KEY_ADVICE}")

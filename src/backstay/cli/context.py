"""What every command shares: which repository, which secret, where the cache is, how results are told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from backstay.cli import jsonout, progress, secrets
from backstay.cli.render import err, out
from backstay.cli.signals import Interrupts
from backstay.cli.streams import ClosedOutput
from backstay.control.opening.cache import usable_cache
from backstay.control.opening.creation import absent
from backstay.control.opening.location import Location
from backstay.core import environment
from backstay.core.clock import Clock
from backstay.core.events import Event, EventSink, Finished, name_of
from backstay.core.loading import loading
from backstay.core.memory import tune_for_large_buffers
from backstay.core.sizes import parse_size
from backstay.errors import (
    CorruptedBackup,
    InsufficientSpace,
    InvalidRequest,
    NoRepository,
    StorageMissing,
    StorageUnavailable,
)

if TYPE_CHECKING:
    from backstay.codec.compression import Compressor
    from backstay.control.policies.loading import LoadedPolicies
    from backstay.repository.format import RepoHeader
    from backstay.repository.repository import Environment, Repository
    from backstay.storage.backend import StorageBackend
    from backstay.storage.limits import LimitPolicy
    from backstay.trust.secrets import Secret


@dataclass(slots=True)
class Context:
    """The global options and the world around the command."""

    environ: Mapping[str, str]
    clock: Clock
    interrupts: Interrupts
    repository: str | None = None
    config: Path | None = None
    password_file: Path | None = None
    mirror: list[str] | None = None
    quorum: int | None = None
    max_size: str | int | None = None
    limit_upload: str | None = None
    limit_download: str | None = None
    limit_requests: int | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: str = "auto"
    compressor: Compressor | None = None
    password: str | None = field(default=None, repr=False)  # that a policy file names
    command: str = "backstay"  # as it was called, for hints
    _policies: LoadedPolicies | None = None

    def take(self, **options: Any) -> None:  # noqa: ANN401 - as the fields are
        """Set global options; what was not given (None or False) changes nothing."""
        for name, value in options.items():
            if value not in (None, False, [], ()):
                setattr(self, name, value)

    # -- telling

    def result(self, document: object, show: Callable[[], None]) -> None:
        """A result, once: as JSON for programs, or as `show` tells it to people."""
        if self.json:
            jsonout.write(document, sys.stdout)
        else:
            show()

    def say(self, text: str) -> None:
        """A line about what was done, for people who did not ask for quiet."""
        if self.talks:
            out(text)

    @property
    def talks(self) -> bool:
        """Whether somebody wants more than the results that were asked for: a closed output asks for quiet."""
        return not self.quiet and not isinstance(sys.stdout, ClosedOutput)

    @staticmethod
    def warn(text: str) -> None:
        """A line that must be seen."""
        err(f"warning: {text}")

    @contextmanager
    def watching(self, *, tidies: bool = False) -> Iterator[EventSink]:
        """A sink that shows the events of an operation while it runs, and where it can be interrupted.

        What `tidies` removes what it made when it is interrupted, or stops what it started, however long that takes.
        """
        with self.interruptible(tidies=tidies) as (sink, _):
            yield sink

    @contextmanager
    def committing(self, last: str) -> Iterator[EventSink]:
        """As `watching`, of what commits: signals are too late once an operation or event of this name is told."""
        with self.watching() as sink:

            def heard(event: Event) -> None:
                if last == (event.operation if isinstance(event, Finished) else name_of(event)):
                    self.interrupts.too_late()
                sink(event)

            yield heard

    @contextmanager
    def interruptible(self, *, tidies: bool = False) -> Iterator[tuple[EventSink, Callable[[], None]]]:
        """As `watching`, with what interrupts where there are no events."""
        tune_for_large_buffers()
        with (
            progress.watching(self.progress, self.environ, quiet=self.quiet) as show,
            self.interrupts.deferred(tidies=tidies) as stop_if_asked,
        ):

            def sink(event: Event) -> None:
                show(event)
                stop_if_asked()

            yield sink, stop_if_asked

    @contextmanager
    def until_stopped(self) -> Iterator[tuple[EventSink, Callable[[], bool]]]:
        """For what runs until a signal ends it gently: a sink of its events, and whether a signal came."""
        tune_for_large_buffers()
        with (
            progress.watching(self.progress, self.environ, quiet=self.quiet) as show,
            self.interrupts.noted() as stopped,
        ):
            yield show, stopped

    # -- opening

    def location(self, named: str | None = None) -> Location:
        """The repository that is meant: named here, by -r, by BACKSTAY_REPO, by a policy file, or the default one.

        What a policy file says of its repository holds from then on as if the global options said it, unless they do.
        """
        if "" in (named, self.repository):
            raise InvalidRequest(
                "the address of the repository is empty",
                cause="a text without characters names no place",
                hint="give -r ADDRESS, or leave -r out",
            )
        if named is not None and self.repository not in (None, named):
            raise InvalidRequest(
                "two addresses are given for the repository",
                cause=f"the command names {named}, and -r {self.repository}",
                hint="give one of them",
            )
        address = named or self.repository or environment.repository_address(self.environ)
        if address is not None:
            return Location(address)
        config = environment.config_directory(self.environ)
        default = Location(str(environment.data_directory(self.environ) / "repository"), config / "default.key")
        return default if self.policy_file() is None else self._location_of_file(default)

    def policy_file(self) -> Path | None:
        """The policy file: --config, else BACKSTAY_CONFIG."""
        named = environment.variable(self.environ, "BACKSTAY_CONFIG")
        return self.config or (None if named is None else Path(named))

    def policies(self, file: Path | None = None) -> LoadedPolicies:
        """The policies of a file, else of the one that is named for all commands. Raises PolicyInvalid."""
        from backstay.control.policies.loading import load

        if file is not None:
            return load(file, self.environ)
        if self._policies is None:
            named = self.policy_file()
            if named is None:
                raise InvalidRequest(
                    "no policy file is named",
                    cause="there is neither --config nor BACKSTAY_CONFIG",
                    hint="give --config FILE; docs/policies.md has an example",
                )
            self._policies = load(named, self.environ)
        return self._policies

    def _location_of_file(self, default: Location) -> Location:
        from backstay.control.policies.repository_settings import key_file_name, repository_settings

        settings = repository_settings(self.policies(), self.environ)
        self.compressor, self.password = settings.compressor, settings.password
        if settings.address is None:
            return replace(default, key_file=settings.key_file or default.key_file)
        self.mirror = self.mirror or list(settings.mirrors)
        self.quorum = self.quorum or settings.quorum
        self.max_size = self.max_size or settings.max_size
        assert default.key_file is not None
        made = default.key_file.with_name(key_file_name(settings.address))
        mark = made.with_suffix(".made")
        return Location(settings.address, settings.key_file or made, "backstay run POLICY", mark)

    def given_secret(self) -> Secret | None:
        """What opens the repository and was named on purpose: by option, variable or policy file."""
        given = secrets.given_secret(self.environ, self.password_file)
        return secrets.secret_of(self.password) if given is None and self.password is not None else given

    @contextmanager
    def open(
        self, *, index: bool = True, cached: bool = False, grows: bool = False, then: Sequence[str] = ()
    ) -> Iterator[Repository]:
        """The repository, opened. Without `index` only snapshots and keys are needed, and no cache.

        With `cached` it has one all the same, for an index that may be needed later.
        What `grows` a repository is subject to its size limit; what frees space is not.
        The modules of `then` are loaded while the key is derived.
        """
        address = self.location().address
        if self.quorum is not None and not self.mirror:
            raise InvalidRequest("a quorum needs copies", hint="name them with --mirror")
        backend = self.backend(address, mirrors=self.mirror or (), grows=grows)
        with self._opened(backend, index=index, cached=index or cached, then=then) as repository:
            yield repository

    @contextmanager
    def opened_on(self, backend: StorageBackend) -> Iterator[Repository]:
        """The repository, opened on a backend made for it."""
        with self._opened(backend, index=True, cached=True) as repository:
            yield repository

    @contextmanager
    def assembled(self, address: str, *, create: bool = False, grows: bool = False) -> Iterator[StorageBackend]:
        """The backend of one address, without mirrors."""
        with self.backend(address, create=create, grows=grows) as backend:
            yield backend

    def backend(
        self, address: str, *, mirrors: Sequence[str] = (), create: bool = False, grows: bool = False
    ) -> StorageBackend:
        """The backend of an address with its retries, and the limits and mirrors that were asked for."""
        from backstay.storage.assembly import StorageSettings, assemble

        settings = StorageSettings(
            mirrors=tuple(mirrors),
            quorum=self.quorum if mirrors else None,
            max_size=_size(self.max_size) if grows else None,
            limits=self._limits(),
        )
        return assemble(address, settings, create=create, clock=self.clock, warn=self.warn)

    def world(self) -> Environment:
        """What a repository takes from outside: the limits hold for its cold tier too."""
        from backstay.repository.repository import Environment
        from backstay.storage.cold_store import reach
        from backstay.storage.limits import LimitPolicy, Limits

        limits = self._limits()
        if limits == LimitPolicy():
            return Environment()
        return Environment(open_cold=lambda address, create: Limits(reach(address, create), limits, clock=self.clock))

    def _limits(self) -> LimitPolicy:
        from backstay.storage.limits import LimitPolicy

        return LimitPolicy(
            upload=_size(self.limit_upload), download=_size(self.limit_download), requests=self.limit_requests
        )

    def _opened(self, backend: StorageBackend, *, index: bool, cached: bool, then: Sequence[str] = ()) -> Repository:
        from backstay.repository.keys.unlocking import read_header

        location = self.location()
        secret = secrets.find_secret(
            given=self.given_secret(),
            key_file=location.key_file,
            address=location.address,
            ready=lambda: self._require(backend, location),
        )
        try:
            with loading("backstay.repository.repository", *then):
                unlocked = read_header(backend, secret)
        except NoRepository as error:
            raise absent(location, error.cause) from error
        from backstay.repository.repository import Repository

        cache = self.cache() if cached else None
        repository = Repository.unlocked(
            backend, unlocked, cache=cache, environment=self.world(), compressor=self.compressor
        )
        return self._with_index(repository, unlocked) if index and repository.cache is not None else repository

    def _with_index(self, repository: Repository, unlocked: tuple[RepoHeader, bytes]) -> Repository:
        """The same repository with its index loaded, without a cache if that cannot be used."""
        try:
            with suppress(CorruptedBackup):  # whoever needs the index meets it again, and some can do without
                repository.reload_index()
                for error in repository.collections.damaged.values():
                    self.warn(f"{error}: nothing can be written until that is mended; {error.hint}")
        except (StorageUnavailable, InsufficientSpace) as error:
            self.warn(f"working without a cache: {error}")
            return type(repository).unlocked(
                repository.backend,
                unlocked,
                cache=None,
                environment=repository.environment,
                compressor=repository.compressor,
            )
        return repository

    def _require(self, backend: StorageBackend, location: Location) -> None:
        """Raise when there is no repository, before anybody is asked for its password."""
        from backstay.repository.format import REPO

        try:
            there = backend.exists(REPO)
        except StorageMissing as error:
            raise absent(location, str(error)) from error
        if not there:
            raise absent(location, "")

    def cache(self) -> Path | None:
        """The directory for disposable data, or None when it cannot be used."""
        return usable_cache(self.environ, self.warn)


def _size(given: str | int | None) -> int | None:
    return parse_size(given) if isinstance(given, str) else given


def context_of(ctx: typer.Context) -> Context:
    """Ours, from typer's."""
    found = ctx.obj
    assert isinstance(found, Context)
    found.command = ctx.command_path
    return found

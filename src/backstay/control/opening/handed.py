"""A repository in a store that the caller has made, and keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from backstay.codec.compression import Compressor
from backstay.control.opening.cache import usable_cache
from backstay.control.opening.creation import has_repository
from backstay.control.opening.secrets import WAYS, given_secret, secret_of
from backstay.core.clock import Clock
from backstay.errors import WrongKey
from backstay.repository.collection.reserve import set_aside
from backstay.repository.repository import Environment, Repository
from backstay.storage.backend import StorageBackend
from backstay.storage.retrying import Retrying
from backstay.trust.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedStore:
    """Opens the repository in a store, which stays open. Its password is given: no key file could say whose it is."""

    store: StorageBackend
    environ: Mapping[str, str] = field(repr=False)
    clock: Clock
    warn: Callable[[str], None]
    compressor: Compressor
    password: str | None = field(default=None, repr=False)

    @contextmanager
    def open(self, *, index: bool = True, grows: bool = False) -> Iterator[Repository]:
        """The repository. Raises NoRepository, WrongKey."""
        del grows  # the store has no size limit but its own
        cache = usable_cache(self.environ, self.warn) if index else None
        environment = Environment(clock=self.clock)
        repository = Repository.open(
            self._retrying, self._secret(), cache=cache, environment=environment, compressor=self.compressor
        )
        try:
            yield repository
        finally:
            repository.release()

    def prepare(self) -> None:
        """Make the repository if there is none."""
        if has_repository(self._retrying):
            return
        made = Repository.create(
            self._retrying,
            self._secret(),
            environment=Environment(clock=self.clock),
            compressor=self.compressor,
            note="created by the first backup",
        )
        set_aside(made)
        made.release()

    @property
    def _retrying(self) -> StorageBackend:
        return Retrying(self.store, clock=self.clock)

    def _secret(self) -> Secret:
        found = secret_of(self.password) if self.password is not None else given_secret(self.environ, None)
        if found is None:
            raise WrongKey("no password was given", cause="a store that is handed over has no key file", hint=WAYS)
        return found

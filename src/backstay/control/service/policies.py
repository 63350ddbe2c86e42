"""The policy file of a running service: read again when it has changed, and kept as it was when it has mistakes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from backstay.control.policies.access import AccessSettings
from backstay.control.policies.loading import LoadedPolicies, load
from backstay.control.policies.service import ServiceSettings
from backstay.errors import InvalidRequest, NotFound, PolicyInvalid

Face = tuple[int, int, int]


class Policies:
    """What the policy file says now. Without a file there are no policies, which is no mistake."""

    def __init__(self, file: Path | None, environ: Mapping[str, str]) -> None:
        """Raises PolicyInvalid, InvalidRequest: what has mistakes at the start is not served."""
        self.file, self._environ = file, environ
        self._lock = threading.Lock()
        self._face: Face | None = None
        self._loaded: LoadedPolicies | None = None
        self.trouble: PolicyInvalid | InvalidRequest | None = None
        if file is not None:
            self._face, self._loaded = _face(file), load(file, environ)

    @property
    def loaded(self) -> LoadedPolicies | None:
        """The last version without mistakes."""
        with self._lock:
            return self._loaded

    @property
    def access(self) -> AccessSettings | None:
        """What it says of access."""
        return None if (loaded := self.loaded) is None else loaded.content.backup_manager.access

    @property
    def service(self) -> ServiceSettings:
        """What it says of the service itself."""
        found = None if (loaded := self.loaded) is None else loaded.content.backup_manager.service
        return found or ServiceSettings()

    def agent_of(self, policy: str) -> str | None:
        """The agent that runs a policy, None for our own workers, who also tell what is wrong with an unknown one."""
        loaded = self.loaded
        found = None if loaded is None else loaded.content.policies.get(policy)
        return None if found is None else found.agent

    def run_by(self, agent: str) -> list[str]:
        """The policies that an agent runs."""
        loaded = self.loaded
        return [] if loaded is None else [name for name, one in loaded.content.policies.items() if one.agent == agent]

    def required(self) -> LoadedPolicies:
        """Raises NotFound when there is no policy file."""
        if (loaded := self.loaded) is None:
            raise NotFound(
                "there are no policies",
                cause="the service was started without a policy file",
                hint="start it with --config FILE; docs/policies.md has an example",
            )
        return loaded

    def reload(self) -> bool:
        """Read the file if it has changed; whether something else holds from now on.

        Raises PolicyInvalid, InvalidRequest, once for each change; then what was read before still holds.
        """
        if self.file is None:
            return False
        face = _face(self.file)
        with self._lock:
            if face == self._face:
                return False
            self._face = face  # before it is read: a change while we read is another one
        try:
            loaded = load(self.file, self._environ)
        except (PolicyInvalid, InvalidRequest) as error:
            self.trouble = error
            raise
        with self._lock:
            self._loaded, self.trouble = loaded, None
        return True


def _face(file: Path) -> Face | None:
    """What changes when a file does; None for one that is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

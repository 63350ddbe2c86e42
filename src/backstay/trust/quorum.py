"""A quorum: how many of which validators must find a snapshot good before it counts.

The policy belongs to whoever reads, as a file or an object of theirs, and never to the store, which could name itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from backstay.core import environment
from backstay.errors import InvalidQuorum, InvalidRequest, QuorumNotReached, UnknownValidator
from backstay.trust.attestation import Statement
from backstay.trust.validators import KnownValidator

_MAX_FILE: Final = 1 << 20  # bytes
_MAX_VALIDATORS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a snapshot has come: who attested it, and who has not yet, by name and in order."""

    required: int
    validated_by: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        return len(self.validated_by) >= self.required

    def require(self, snapshot: str) -> None:
        """Raises QuorumNotReached, naming who is missing."""
        if not self.accepted:
            raise QuorumNotReached(
                f"snapshot {snapshot} is pending: {len(self.validated_by)} of {self.required} validators attested it",
                cause=f"missing are {', '.join(self.missing)}",
                missing=self.missing,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumPolicy:
    """`required` of these validators must attest a snapshot. Raises InvalidQuorum for one that could not work."""

    required: int
    validators: Sequence[KnownValidator]

    def __post_init__(self) -> None:
        object.__setattr__(self, "validators", tuple(self.validators))
        names = [validator.name for validator in self.validators]
        keys = [validator.public_key for validator in self.validators]
        if isinstance(self.required, bool) or not isinstance(self.required, int):
            raise InvalidQuorum("a quorum requires a whole number of validators", cause=f"not {self.required!r}")
        if len(names) > _MAX_VALIDATORS:
            raise InvalidQuorum("a quorum has too many validators", cause=f"{len(names)}, not {_MAX_VALIDATORS}")
        if name := _first_twice(names):
            raise InvalidQuorum("a quorum names two validators alike", cause=f"two are called {name}")
        if key := _first_twice(keys):
            told = " and ".join(known.name for known in self.validators if known.public_key == key)
            raise InvalidQuorum("a quorum counts one key twice", cause=f"{told} have the same public key")
        if self.required < 1:
            raise InvalidQuorum("a quorum of nobody accepts everything", cause=f"required is {self.required}")
        if self.required > len(names):
            raise InvalidQuorum(
                "a quorum can never be reached", cause=f"it requires {self.required} of {len(names)} validators"
            )

    def find(self, public_key: str) -> KnownValidator:
        """The validator with this key. Raises UnknownValidator."""
        for validator in self.validators:
            if validator.public_key == public_key:
                return validator
        raise UnknownValidator(
            "a key that the quorum policy does not know cannot attest",
            cause=f"its public half is {public_key}",
            hint="add it to the policy, if its holder is to be trusted",
        )

    def judge(self, statements: Iterable[Statement], *, repository: str, snapshot: str, digest: str) -> Standing:
        """Count the validators who attested this very object; others, and the same one again, count for nothing."""
        signed = {
            statement.public_key
            for statement in statements
            if (statement.repository, statement.snapshot, statement.digest) == (repository, snapshot, digest)
        }
        return Standing(
            required=self.required,
            validated_by=tuple(known.name for known in self.validators if known.public_key in signed),
            missing=tuple(known.name for known in self.validators if known.public_key not in signed),
        )

    @property
    def digest(self) -> bytes:
        """SHA-256 that tells policies apart: over `required` and the sorted keys, whatever the names are."""
        keys = sorted(validator.public_key for validator in self.validators)
        return hashlib.sha256(msgspec.json.encode([self.required, keys])).digest()

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> QuorumPolicy | None:
        """The one that BACKSTAY_QUORUM_POLICY names, if it names one. Raises as `load` does."""
        named = environment.variable(environ, "BACKSTAY_QUORUM_POLICY")
        return None if named is None else cls.load(Path(named))

    @classmethod
    def load(cls, path: Path) -> QuorumPolicy:
        """From a file in YAML 1.2 or JSON: `required: N`, and `validators`, a list of `name` and `public_key`.

        Raises InvalidQuorum, InvalidRequest when it cannot be read.
        """
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE + 1)
        except OSError as error:
            raise InvalidRequest(f"cannot read the quorum policy {path}", cause=error.strerror or "") from error
        if len(data) > _MAX_FILE:
            raise InvalidQuorum(f"{path} is too large for a quorum policy", cause=f"more than {_MAX_FILE} bytes")
        return cls.parse(data, told=str(path))

    @classmethod
    def parse(cls, data: bytes, *, told: str = "the quorum policy") -> QuorumPolicy:
        """The same from bytes."""
        from backstay.trust.quorum_file import read_quorum

        required, validators = read_quorum(data, told)
        return cls(required=required, validators=[KnownValidator(name, key) for name, key in validators])


def _first_twice(values: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None

"""Errors of policy files and of running them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backstay.errors.base import BackupFailed, InvalidRequest


class KeyProviderUnsupported(InvalidRequest):
    """A policy file wants the keys of a repository kept by a service that this version cannot ask."""

    default_hint = "use `provider: password` or `provider: key_file`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake in a policy file: where, which key, what is wrong, and what to do about it if that is known."""

    file: str
    line: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        told = (
            f"{self.file}:{self.line}: {self.key}: {self.message}"
            if self.key
            else f"{self.file}:{self.line}: {self.message}"
        )
        return f"{told} ({self.hint})" if self.hint else told


class PolicyInvalid(InvalidRequest):
    """A policy file cannot be read, or says what cannot be; `mistakes` are all that were found, by their lines."""

    default_hint = "`backstay policy check` looks again; docs/policies.md has every key"

    def __init__(self, file: str, mistakes: Sequence[Mistake]) -> None:
        count = f"{len(mistakes)} mistakes" if len(mistakes) > 1 else "a mistake"
        super().__init__(f"{file} has {count}", cause=str(mistakes[0]))
        self.mistakes = tuple(mistakes)


class HookFailed(BackupFailed):
    """A program that a policy runs beside its backups ended with an error, took too long, or cannot be started."""

    default_hint = "run it by itself; `on_error: warn` lets the policy go on without it"

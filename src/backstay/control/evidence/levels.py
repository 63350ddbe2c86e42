"""How thoroughly to verify, in one word: `metadata`, `integrity`, `full` or `restore_test`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from backstay.errors import InvalidRequest
from backstay.operations.verify.run import ALL_CHECKS, VerifyOptions

Level: TypeAlias = Literal["metadata", "integrity", "full", "restore_test"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)


def options_of(
    level: str, *, scratch: Path | None = None, min_bytes: int | None = None, reserve: bool = True
) -> VerifyOptions:
    """What each level asks of `run_verify`; each does what those before it do.

    `metadata` reads signatures and walks all listings; `integrity` also sees that every pack is there, whole in size
    and named in the index; `full` reads, decrypts and decodes all data; `restore_test` restores into `scratch` besides,
    and compares. `min_bytes` is what each snapshot must hold at least. Raises InvalidRequest for another word, and for
    `restore_test` without a place.
    """
    if level not in LEVELS:
        raise InvalidRequest(
            f"there is no level {level!r}", cause="levels say how thoroughly to verify", hint=f"one of {_words()}"
        )
    if level == "restore_test" and scratch is None:
        raise InvalidRequest(
            "a restore test needs a place",
            cause="no directory is named that may be filled and emptied",
            hint="give `verification.scratch` in the policy, or --rehearse DIR",
        )
    return VerifyOptions(
        checks=("completeness", "size", "signature") if level == "metadata" else ALL_CHECKS,
        read_data=1.0 if level in ("full", "restore_test") else 0.0,
        min_bytes=min_bytes,
        rehearse=scratch if level == "restore_test" else None,
        reserve=reserve,
    )


def _words() -> str:
    return ", ".join(LEVELS[:-1]) + f" or {LEVELS[-1]}"

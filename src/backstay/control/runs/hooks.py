"""Programs that a policy runs beside its backups."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from backstay.control.policies.origins import has_password
from backstay.control.policies.policy import Hook
from backstay.core.clock import Clock
from backstay.core.times import parse_length
from backstay.errors import BackstayError, HookFailed
from backstay.sources.program import Program

When: TypeAlias = Literal["before", "after", "failure", "always"]

# A program that is not ours gets no password that it did not ask for: those of repositories and of their stores, and
# the right to everything in the service.
_SECRET: Final = re.compile(r"BACKSTAY_(ADMIN_TOKEN|([A-Z_]+_)?PASSWORD)")
_ADDRESS: Final = "BACKSTAY_DATABASE"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookOutcome:
    """How a hook ended; `error` is None when it went well."""

    when: When
    command: tuple[str, ...]
    error: HookFailed | None
    fails_policy: bool


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for programs that are not ours; of the service's database only an address without a password."""
    return {
        name: value
        for name, value in environ.items()
        if _SECRET.fullmatch(name) is None and not (name == _ADDRESS and has_password(value))
    }


def run_hook(
    when: When,
    hook: Hook,
    facts: Mapping[str, str],
    *,
    environ: Mapping[str, str],
    clock: Clock,
    tick: Callable[[], None],
) -> HookOutcome:
    """Run one hook to its end, which must come in its time; `tick` is called meanwhile, and may raise.

    It is told what there is to know in variables: `facts`, with `BACKSTAY_` before each name.
    """
    told = {f"BACKSTAY_{name}": value for name, value in facts.items()} | {"BACKSTAY_HOOK": when}
    error = None
    try:
        _run(hook, without_secrets(environ) | told, clock, tick)
    except HookFailed as failure:
        error = failure
    fails = error is not None and hook.on_error == "fail"
    return HookOutcome(when=when, command=hook.command, error=error, fails_policy=fails)


def _run(hook: Hook, environ: Mapping[str, str], clock: Clock, tick: Callable[[], None]) -> None:
    """Raises HookFailed."""
    limit_s = parse_length(hook.timeout).total_seconds()
    begun = clock.monotonic()

    def wait() -> None:
        tick()
        if clock.monotonic() - begun > limit_s:
            raise HookFailed(f"the hook {hook.command[0]} does not end", cause=f"it had {hook.timeout} to do so")

    try:
        program = Program(hook.command, environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    except BackstayError as error:
        raise HookFailed(f"the hook {hook.command[0]} cannot be started", cause=error.cause) from error
    try:
        status = program.ended(wait)
        if status != 0:
            raise HookFailed(f"the hook {hook.command[0]} failed", cause=program.failure(status).cause)
    finally:
        if program.process.poll() is None:  # what it started goes with it: it has a session of its own
            with suppress(ProcessLookupError):
                os.killpg(program.process.pid, signal.SIGKILL)
        program.close()

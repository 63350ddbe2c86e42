"""What a policy file may say and this version does not do by itself yet: told, and never passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator

from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.policy import Schedule, Scheduling, Verification
from backstay.errors import Mistake

_TIMES = ("full", "incremental", "differential")


def pending(loaded: LoadedPolicies) -> list[Mistake]:
    """A remark for each such key, by the lines of the file."""
    found = [*_of_settings(loaded), *_of_policies(loaded)]
    return sorted(found, key=lambda remark: remark.line)


def _of_settings(loaded: LoadedPolicies) -> Iterator[Mistake]:
    settings, tell = loaded.content.backup_manager, loaded.document.mistake
    manager = "backup_manager"
    if settings.scheduling is not None:
        yield from _of_times(loaded, settings.scheduling, (manager, "scheduling"), "POLICY")
    if settings.verification is not None:
        yield from _of_verification(loaded, settings.verification, (manager, "verification"))
    if settings.storage is not None and settings.storage.cold is not None:
        hint = "`backstay tier set --cold ADDRESS` sets it, and `backstay tier move` moves"
        yield tell((manager, "storage", "cold"), "nothing moves packs by itself yet", hint)
    if settings.encryption is not None:
        if settings.encryption.provider == "aws_kms":
            hint = "there are `provider: password` and `provider: key_file`"
            yield tell(
                (manager, "encryption", "provider"), "this version cannot ask it: `backstay run` refuses to", hint
            )
        if settings.encryption.key_rotation_days:
            hint = "let cron call `backstay key rotate`"
            yield tell((manager, "encryption", "key_rotation_days"), "nothing rotates keys by itself yet", hint)
    if not loaded.content.policies:
        yield tell(("policies",), "there are none, so that `backstay run` has nothing to run")


def _of_policies(loaded: LoadedPolicies) -> Iterator[Mistake]:
    for name, policy in loaded.content.policies.items():
        if policy.schedule is not None:
            yield from _of_times(loaded, policy.schedule, ("policies", name, "schedule"), name)
        if policy.verification is not None:
            yield from _of_verification(loaded, policy.verification, ("policies", name, "verification"))


def _of_times(
    loaded: LoadedPolicies, times: Schedule | Scheduling, key: tuple[str, ...], policy: str
) -> Iterator[Mistake]:
    tell = loaded.document.mistake
    suffix = "_backup" if isinstance(times, Scheduling) else ""
    if any(getattr(times, word + suffix) is not None for word in _TIMES):
        hint = f"let cron call `backstay run {policy}`"
        yield tell(key, "the times are checked, but nothing runs by itself yet", hint)
    if times.transaction_logs is not None:
        hint = "`backstay pg receive`, `pg archive` and `mysql receive` store logs as they are written"
        yield tell((*key, "transaction_logs"), "the time is checked, but nothing runs by itself yet", hint)
    if getattr(times, "configuration" + suffix) is not None:
        hint = f"let cron call `backstay run {policy}`: what did not change costs next to nothing"
        yield tell((*key, "configuration" + suffix), "nothing watches configurations yet", hint)


def _of_verification(loaded: LoadedPolicies, verification: Verification, key: tuple[str, ...]) -> Iterator[Mistake]:
    if verification.enabled and verification.schedule is not None:
        hint = "let cron call `backstay verify`, or add `each_run: true`"
        yield loaded.document.mistake((*key, "schedule"), "the time is checked, but nothing runs by itself yet", hint)

"""What a policy file may say and this version does not do, or does in another way than one may think.

All of it is told, and never passed over in silence. What has a time comes by `backstay serve`, and needs no remark.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from backstay.control.policies.configuration_paths import configuration_paths
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.origins import DATABASES
from backstay.errors import Mistake

_OF_LOGS: Final = (
    "databases are dumped anew at these times, which reads all of each",
    "`backstay pg receive`, `pg archive` and `mysql receive` store logs as they are written",
)


def pending(loaded: LoadedPolicies) -> list[Mistake]:
    """A remark for each such key, by the lines of the file."""
    found = [*_of_settings(loaded), *_of_policies(loaded)]
    return sorted(found, key=lambda remark: remark.line)


def _of_settings(loaded: LoadedPolicies) -> Iterator[Mistake]:
    settings, tell = loaded.content.backup_manager, loaded.document.mistake
    manager = "backup_manager"
    if settings.scheduling is not None and settings.scheduling.transaction_logs is not None:
        yield tell((manager, "scheduling", "transaction_logs"), *_OF_LOGS)
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
    tell = loaded.document.mistake
    for name, policy in loaded.content.policies.items():
        times, key = policy.schedule, ("policies", name, "schedule")
        if times is None:
            continue
        if times.transaction_logs is not None:
            if any(origin.type in DATABASES for origin in policy.sources):
                yield tell((*key, "transaction_logs"), *_OF_LOGS)
            else:
                hint = "leave it out, or add a database"
                yield tell((*key, "transaction_logs"), "no source is a database, so that nothing comes then", hint)
        if times.configuration is not None and not any(map(configuration_paths, policy.sources)):
            message = "none of the paths looks like configuration, so that nothing comes then"
            yield tell((*key, "configuration"), message, "name the source that has it `config`")

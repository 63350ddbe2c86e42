"""The model of a policy file: `backup_manager` with what holds for all, and the policies by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from backstay.codec.compression import Compressor
from backstay.control.policies.access import AccessSettings
from backstay.control.policies.cron import Cron
from backstay.control.policies.notifications import Alerts, Limits, Notifications, PolicyNotifications
from backstay.control.policies.origins import (
    ASKED,
    AnyOrigin,
    MysqlOrigin,
    Name,
    PostgresqlOrigin,
    distinct,
    has_password,
)
from backstay.control.policies.places import AnyStorage
from backstay.control.policies.rehearsals import Query, ScratchServer, TriedProgram
from backstay.control.policies.service import ServiceSettings
from backstay.control.policies.values import (
    CalendarSpan,
    Count,
    Flag,
    Length,
    Model,
    Size,
    Text,
    WholePath,
    Wrong,
    Zone,
    several,
    told_words,
    understood,
)
from backstay.core.times import Span
from backstay.errors import InvalidRequest
from backstay.operations.backup.request import check_name
from backstay.operations.retention.rules import RetentionRules

AGENT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")  # as users have, whom agents are among
Checks = Literal["integrity", "completeness", "size", "signature"]


class Compression(Model):
    """How chunks are compressed; what is stored already stays as it is."""

    enabled: Flag = True
    algorithm: Literal["zstd", "gzip", "none"] = "zstd"
    level: Count | None = None

    @model_validator(mode="after")
    def _level_exists(self) -> Self:
        try:
            self.compressor()
        except InvalidRequest as error:
            raise Wrong(str(error), error.hint) from error
        return self

    def compressor(self) -> Compressor:
        """What compresses so."""
        return Compressor(self.algorithm, self.level) if self.enabled else Compressor("none")


def _encrypts(enabled: bool) -> bool:
    if not enabled:
        raise Wrong("repositories are always encrypted", "leave `enabled` out")
    return enabled


class Encryption(Model):
    """Who keeps the secret that opens the repository."""

    enabled: Annotated[Flag, AfterValidator(_encrypts)] = True
    provider: Literal["password", "key_file", "aws_kms"] = "password"
    password: Text | None = None
    key_file: WholePath | None = None
    key_id: Text | None = None
    key_rotation_days: Count | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        needs = {"password": self.password, "key_file": self.key_file, "aws_kms": self.key_id}
        keys = {"password": "password", "key_file": "key_file", "aws_kms": "key_id"}
        if self.provider != "password" and needs[self.provider] is None:
            raise Wrong(f"the provider {self.provider} needs `{keys[self.provider]}`")
        for provider, value in needs.items():
            if value is not None and provider != self.provider:
                raise Wrong(f"`{keys[provider]}` is for the provider {provider}", f"the provider is {self.provider}")
        return self


class Scheduling(Model):
    """When policies run that have no schedule of their own."""

    timezone: Zone = "UTC"
    full_backup: Cron | None = None
    incremental_backup: Cron | None = None
    differential_backup: Cron | None = None
    transaction_logs: Cron | None = None
    configuration_backup: Cron | Literal["on_change"] | None = None


class Schedule(Model):
    """When a policy runs."""

    timezone: Zone | None = None
    full: Cron | None = None
    incremental: Cron | None = None
    differential: Cron | None = None
    transaction_logs: Cron | None = None
    configuration: Cron | Literal["on_change"] | None = None


class Retention(Model):
    """Which snapshots stay; one that any rule keeps stays."""

    keep_last: Count | None = None
    keep_hourly: Count | None = None
    keep_daily: Count | None = None
    keep_weekly: Count | None = None
    keep_monthly: Count | None = None
    keep_yearly: Count | None = None
    keep_within: CalendarSpan | None = None
    keep_tags: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _keeps_something(self) -> Self:
        try:
            self.rules()
        except InvalidRequest as error:
            raise Wrong(error.title, "keep something, for example keep_daily: 7") from error
        return self

    def rules(self) -> RetentionRules:
        """The rules of `prune`."""
        given = self.model_dump(exclude={"keep_within"})
        return RetentionRules(**given, keep_within=Span.parse(self.keep_within) if self.keep_within else None)


class Verification(Model):
    """How and when backups are checked."""

    enabled: Flag = True
    schedule: Cron | None = None
    each_run: Flag = False
    checks: Annotated[tuple[Checks, ...], several(1)] = ("integrity", "completeness", "size", "signature")
    min_bytes: Size | None = None
    read_data: Annotated[Count, Field(le=100)] = 0
    restore_test: Flag = False
    scratch: WholePath | None = None
    server: ScratchServer | None = None
    queries: tuple[Query, ...] = ()
    commands: tuple[TriedProgram, ...] = ()

    @model_validator(mode="after")
    def _is_asked_of_something(self) -> Self:
        for key in ("queries", "commands", "server"):
            if getattr(self, key) and not self.restore_test:
                raise Wrong(f"`{key}` ask about what was restored, and nothing is", "add `restore_test: true`")
        return self

    @model_validator(mode="after")
    def _has_a_time(self) -> Self:
        if self.enabled and self.schedule is None and not self.each_run:
            raise Wrong("nothing says when to verify", "give `schedule` or `each_run: true`")
        return self


class Hook(Model):
    """A program that runs beside the backups of a policy."""

    command: Annotated[tuple[Text, ...], several(1)]
    on_error: Literal["fail", "warn"] = "fail"
    timeout: Length = "1h"


class Hooks(Model):
    """Programs before the backups, after they went well, after they did not, and at the end in any case."""

    before: tuple[Hook, ...] = ()
    after: tuple[Hook, ...] = ()
    failure: tuple[Hook, ...] = ()
    always: tuple[Hook, ...] = ()


def _agent_name(name: str) -> str:
    """A name that an agent can have. Raises Wrong."""
    if AGENT_NAME.fullmatch(name) is None:
        raise Wrong(
            f"{name[:80]!r} is no name of an agent", "names have up to 64 of a-z, 0-9, `.`, `_`, `@`, `+` and `-`"
        )
    return name


class Policy(Model):
    """What is backed up, when, and how long it is kept.

    With `agent` the whole of a run happens on the host of that agent: hooks, backups, retention, verification.
    """

    agent: Annotated[str, AfterValidator(_agent_name)] | None = None
    description: str = ""
    tags: tuple[Text, ...] = ()
    sources: Annotated[tuple[AnyOrigin, ...], several(1), AfterValidator(distinct)]
    schedule: Schedule | None = None
    retention: Retention | None = None
    verification: Verification | None = None
    hooks: Hooks | None = None
    notifications: PolicyNotifications | None = None
    alerts: Limits | None = None

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        """What an agent is told holds no secrets, and nobody looks at its files from here."""
        if self.agent is None:
            return self
        for number, origin in enumerate(self.sources):
            if isinstance(origin, PostgresqlOrigin | MysqlOrigin) and has_password(origin.connection):
                raise Wrong(
                    f"sources[{number}].connection holds a password, and no secrets are sent to agents",
                    "leave it out, and keep it on the agent's host: in ~/.pgpass, ~/.my.cnf or a variable",
                )
        if self.verification is not None and has_password(self.verification.server or ""):
            raise Wrong(
                "verification.server holds a password, and no secrets are sent to agents",
                "leave it out, and keep it on the agent's host in ~/.pgpass",
            )
        if self.schedule is not None and self.schedule.configuration == "on_change":
            raise Wrong("nobody sees from here when files of an agent change", "give `configuration` a cron expression")
        return self


class BackupManagerSettings(Model):
    """What holds for the repository, and for policies that say nothing else."""

    storage: AnyStorage | None = None
    compression: Compression | None = None
    encryption: Encryption | None = None
    scheduling: Scheduling | None = None
    retention: Retention | None = None
    verification: Verification | None = None
    notifications: Notifications | None = None
    alerts: Alerts | None = None
    access: AccessSettings | None = None
    service: ServiceSettings | None = None


PolicyName = Annotated[Name, AfterValidator(understood(check_name))]


def sources_by_name(name: str, policy: Policy) -> dict[str, AnyOrigin]:
    """The sources of a policy, by their own names and by those of their snapshots."""
    by_snapshot = {origin.snapshot_name(name): origin for origin in policy.sources}
    return by_snapshot | {origin.name: origin for origin in policy.sources if origin.name is not None}


def _check_asked(wanted: Verification, at: str, known: Mapping[str, AnyOrigin]) -> None:
    """See that each question has somebody who can answer it. Raises Wrong."""
    for key in ("queries", "commands"):
        for number, one in enumerate(getattr(wanted, key)):
            if one.source is not None and one.source not in known:
                raise Wrong(
                    f"{at}.{key}[{number}] asks the source {one.source!r}, which there is not",
                    f"there are {told_words(sorted(known))}",
                )
            asked = known.values() if one.source is None else [known[one.source]]
            if key == "queries" and not any(origin.type in ASKED for origin in asked):
                raise Wrong(
                    f"{at}.{key}[{number}] asks no source that is a database which a rehearsal opens",
                    "it opens SQLite and PostgreSQL; look into files with `commands`",
                )


class PolicyFile(Model):
    """A whole file."""

    backup_manager: BackupManagerSettings = Field(default_factory=BackupManagerSettings)
    policies: dict[PolicyName, Policy] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _questions_have_answers(self) -> Self:
        """What a policy asks its own sources answer; what all may ask, those of one of them."""
        known: dict[str, AnyOrigin] = {}
        for name, policy in self.policies.items():
            own = sources_by_name(name, policy)
            if policy.verification is not None:
                _check_asked(policy.verification, f"policies.{name}.verification", own)
            known |= own
        if self.backup_manager.verification is not None and self.policies:
            _check_asked(self.backup_manager.verification, "backup_manager.verification", known)
        return self

    @property
    def names(self) -> list[str]:
        return list(self.policies)

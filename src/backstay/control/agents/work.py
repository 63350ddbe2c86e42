"""What an agent is told of a job: its policy, as far as the run needs it, and how it was asked for. No secrets.

How to open the repository is not among it: that the host of the agent knows by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import ValidationError

from backstay.control.policies.effective import effective
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.origins import CommandOrigin, has_password
from backstay.control.policies.policy import BackupManagerSettings, Compression, Policy, PolicyName, Scheduling
from backstay.control.policies.values import Model, Zone
from backstay.errors import InvalidRequest, NotFound

PROTOCOL: Final = 1  # of what server and agent say to each other
_ELSEWHERE: Final = ("agent", "schedule", "notifications", "alerts")  # the service's own business


class Work(Model):
    """One run of a policy. `retention` and `verification` of the policy are those that hold for it in the end."""

    name: PolicyName
    policy: Policy
    timezone: Zone
    compression: Compression | None = None
    kind: Literal["full", "incremental", "differential"]
    sources: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    description: str | None = None
    retention_days: int | None = None
    dry_run: bool = False

    @classmethod
    def parse(cls, document: object) -> Self:
        """Work as a server sent it. Raises InvalidRequest, also for a policy that the server says is another's."""
        try:
            found = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise InvalidRequest(
                "this agent does not understand its job",
                cause=f"{where}: {first['msg']}",
                hint="bring the agent to the version of the server",
            ) from error
        return found

    def document(self) -> dict[str, Any]:
        """As it is sent."""
        return self.model_dump(mode="json", exclude_none=True)

    def settings(self) -> BackupManagerSettings:
        """What holds beside the policy itself."""
        return BackupManagerSettings(
            scheduling=Scheduling(timezone=self.timezone), compression=self.compression or Compression()
        )


def work_of(name: str, arguments: Mapping[str, Any], loaded: LoadedPolicies, *, agent: str) -> Work:
    """The work of a job, by the policy file as it is now. Raises NotFound for what is no longer this agent's."""
    policy = loaded.policy(name)
    if policy.agent != agent:
        raise NotFound(
            f"the policy {name} is not that of the agent {agent}",
            cause="the policy file was changed since the job was asked for",
            hint="ask for the backup again",
        )
    settings = loaded.content.backup_manager
    holds = effective(policy, settings)
    server = None if holds.verification is None else holds.verification.server
    if server is not None and has_password(server):
        raise InvalidRequest(
            f"the policy {name} cannot be sent to its agent",
            cause="`verification.server` holds a password, and no secrets are sent to agents",
            hint="leave the password out, and keep it on the agent's host in ~/.pgpass",
        )
    days = arguments.get("retention_days")
    return Work(
        name=name,
        policy=policy.model_copy(
            update=dict.fromkeys(_ELSEWHERE) | {"retention": holds.retention, "verification": holds.verification}
        ),
        timezone=holds.schedule.timezone or "UTC",
        compression=settings.compression,
        kind=arguments.get("type") or "incremental",
        sources=tuple(arguments.get("sources") or ()),
        tags=tuple(arguments.get("tags") or ()),
        description=arguments.get("description"),
        retention_days=None if holds.retention is None else days,  # days must not make drop what is all kept
        dry_run=bool(arguments.get("dry_run")),
    )


def programs_of(policy: Policy) -> list[str]:
    """The programs that a policy names, by their first words."""
    found = [origin.command for origin in policy.sources if isinstance(origin, CommandOrigin)]
    if (hooks := policy.hooks) is not None:
        found += [hook.command for hook in (*hooks.before, *hooks.after, *hooks.failure, *hooks.always)]
    if (checks := policy.verification) is not None:
        found += [tried.command for tried in checks.commands]
    return [command[0] for command in found]

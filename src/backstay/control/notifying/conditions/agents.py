"""Agents that policies need and that do not ask for work any more."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select

from backstay.catalog.models import AgentProcess, User
from backstay.control.notifying.conditions.condition import Condition, Look, told_length, told_time


def silent_agents(look: Look) -> Iterator[Condition]:
    """Each agent of a policy that was not seen for long, or never since this process began to look."""
    processes = select(User.name, AgentProcess).join(User, User.id == AgentProcess.user_id)
    last = {row.name: row.AgentProcess for row in look.session.execute(processes.order_by(AgentProcess.seen_at))}
    for name in look.expected.agents:
        process = last.get(name)
        since = look.watched_since if process is None else process.seen_at
        if look.now - since <= look.expected.silent:
            continue
        host = "" if process is None else f" on {process.host}"
        yield Condition(
            kind="agent_silent",
            subject=f"agent {name}",
            severity="warning",
            title=f"the agent {name} was "
            + ("never seen" if process is None else f"not seen for {told_length(look.now - since)}"),
            ended=f"the agent {name} is back",
            cause="no agent of this name has asked for work"
            if process is None
            else f"it asked for work last at {told_time(since)}",
            solution=f"see that `backstay agent run` runs{host} and reaches the service; see `backstay agent list`",
            details={"agent": name},
        )

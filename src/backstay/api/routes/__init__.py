"""The endpoints, one module for each thing that they are about."""

from __future__ import annotations

from typing import Final

from backstay.api.endpoints import Section
from backstay.api.routes import (
    agent_work,
    agents,
    audit,
    backups,
    contents,
    events,
    evidence,
    health,
    jobs,
    notifications,
    policies,
    recoveries,
    repositories,
    restores,
    schedules,
    tokens,
    users,
)

# In the order in which paths are tried: what has a word comes before what takes any id in its place.
SECTIONS: Final[tuple[Section, ...]] = (
    health.section,
    jobs.section,
    schedules.section,
    backups.section,
    contents.section,
    evidence.section,
    restores.section,
    recoveries.section,
    policies.section,
    repositories.section,
    notifications.section,
    audit.section,
    users.section,
    tokens.section,
    agent_work.section,
    agents.section,
    events.section,
)

"""Which function does a step, and what a look at it beforehand tells."""

from __future__ import annotations

from typing import Any, assert_never

from backstay.control.manager.results import RestorePreview
from backstay.control.recovery import checks, restoring
from backstay.control.recovery.doing import Doing
from backstay.control.recovery.plan import (
    AnyStep,
    ClusterStep,
    CommandStep,
    FileStep,
    GraphStep,
    QueryStep,
    RestoreStep,
    VerifyStep,
)


def perform(step: AnyStep, doing: Doing) -> dict[str, Any]:
    """Do a step; its result for the report. Raises what it does, StepFailed, StepTimeout and Interrupted."""
    doing.checkpoint()
    if isinstance(step, RestoreStep):
        return restoring.restore(step, doing)
    if isinstance(step, ClusterStep):
        return restoring.cluster(step, doing)
    if isinstance(step, GraphStep):
        return restoring.graph(step, doing)
    if isinstance(step, CommandStep):
        return checks.command(step, doing)
    if isinstance(step, QueryStep):
        return checks.query(step, doing)
    if isinstance(step, FileStep):
        return checks.file(step, doing)
    if isinstance(step, VerifyStep):
        return checks.verify(step, doing)
    assert_never(step)


def preview(step: AnyStep, doing: Doing) -> RestorePreview | None:
    """What a step would restore; None for those that restore nothing, or say it only while they do."""
    if isinstance(step, RestoreStep):
        return restoring.preview_restore(step, doing)
    if isinstance(step, ClusterStep):
        return doing.manager.plan_restore("", restoring.cluster_target(step, doing), events=doing.events)
    return None


def told(step: AnyStep) -> str:
    """What a step does, in a line without secrets."""
    from backstay.control.manager.targets import without_password

    if isinstance(step, RestoreStep):
        return f"restore {step.backup} to {without_password(step.to)}"
    if isinstance(step, ClusterStep):
        return f"recover the cluster {step.cluster} in {step.to}"
    if isinstance(step, GraphStep):
        return f"bring back the graph {step.graph} in {step.to}"
    if isinstance(step, CommandStep):
        return f"run {step.command[0]}"
    if isinstance(step, QueryStep):
        return f"ask {without_password(step.connection)}"
    if isinstance(step, FileStep):
        return f"look at {step.path}"
    return f"verify {step.backup}"

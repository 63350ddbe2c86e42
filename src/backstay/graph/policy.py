"""How a graph is restored: what is touched, what is checked before, and how much a recomputation may take."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StrictBool, StrictStr, model_validator

from backstay.errors import BackstayError, InvalidRequest
from backstay.graph.validated import Validated

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class RegenerationPolicy(Validated):
    """The rules of one restore; unknown fields are refused.

    `incremental` touches what is missing, invalid or stale, and what was made from something that comes back
    different; `full` brings everything back anew; `selective` only `nodes` and what these need.
    """

    kind: ClassVar[str] = "policy"
    refusal: ClassVar[type[BackstayError]] = InvalidRequest

    strategy: Literal["incremental", "full", "selective"] = "incremental"
    nodes: tuple[StrictStr, ...] = ()  # for `selective`: ids, or graph:NAME#ID
    # Read and check every output first, not only whether it is there; an output made from other inputs counts as stale.
    validate_before_restore: StrictBool = True
    # Files that a restore replaces are kept, for `ttl_days`, those of the last `max_snapshots` restores; without it
    # they go once the restore has succeeded.
    preserve_history: StrictBool = True
    max_snapshots: Count | None = None
    ttl_days: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    # Commands that stand in the graph itself are run only if this is true: whoever wrote the graph wrote them.
    run_commands: StrictBool = False
    parallel: Annotated[int, Field(ge=1, le=10_000)] | None = None  # recomputations at once; as the executor if None
    # Seconds that one recomputation may take; if None ten times what it took when it was recorded, at least a minute,
    # and an hour where nothing is recorded.
    deadline: Annotated[float, Field(gt=0, le=10**9)] | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 0  # after a recomputation that failed or took too long
    # Bytes that recomputations may take together, by what was recorded of each; if None what the machine has.
    memory_limit: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if self.strategy == "selective" and not self.nodes:
            raise ValueError("a selective restore must name its nodes")
        if self.strategy != "selective" and self.nodes:
            raise ValueError(f"nodes are named for a selective restore only, this one is {self.strategy}")
        return self

    def deadline_of(self, recorded_s: float) -> float:
        """Seconds that the recomputation of something may take that took so long when it was recorded."""
        if self.deadline is not None:
            return self.deadline
        return max(60.0, 10 * recorded_s) if recorded_s else 3600.0

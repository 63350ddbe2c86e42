"""Ways in which the output of a node can be made again, and the job that one of them is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

from backstay.errors import BackstayError, RecomputeFailed
from backstay.graph.inputs import Inputs
from backstay.graph.model import Node
from backstay.graph.produced import Produced, spool
from backstay.graph.raised import said
from backstay.graph.stopping import Stopper

Function: TypeAlias = Callable[[Node, Inputs], Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One node to make again. `scratch` is a directory of this job's own."""

    node: Node
    inputs: Inputs
    scratch: Path
    stopper: Stopper = field(default_factory=Stopper)


class Way(Protocol):
    """How a node is made again."""

    @property
    def killable(self) -> bool:
        """Whether stopping a job ends it."""
        ...

    def make(self, job: Job) -> Produced:
        """Do the job, on the calling thread; raises RecomputeFailed, and whatever a function raises."""
        ...

    def __str__(self) -> str:
        """What a plan says of it."""
        ...


@dataclass(frozen=True)
class FunctionWay:
    """A function of this program, called with the node and its inputs."""

    function: Function
    name: str = ""
    killable: ClassVar[bool] = False  # nothing can kill a thread

    def make(self, job: Job) -> Produced:
        return spool(self.function(job.node, job.inputs), job.scratch, job.stopper)

    def __str__(self) -> str:
        return self.name or f"function {getattr(self.function, '__qualname__', repr(self.function))}"


def as_failure(node: str, error: BaseException) -> BackstayError:
    """What a node's recomputation raised, as an error that names the node."""
    if isinstance(error, RecomputeFailed):
        return type(error)(f"{node}: {error.title}", cause=error.cause, hint=error.hint)
    if isinstance(error, BackstayError):
        return error
    return RecomputeFailed(f"{node}: its recomputation raised {type(error).__name__}", cause=said(error))

"""What agents send: who they are, how far a job is, and what became of it. All of it is checked: it is shown, and
counted.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, StringConstraints
from typing_extensions import TypedDict

from backstay.api.models.base import Asked, Line, Moment, Prose, storable

Instance = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12,32}$")]
Number = Annotated[int, Field(ge=0, lt=2**63)]
SnapshotId = Annotated[str, StringConstraints(pattern=r"^[0-9a-z]{26}$")]
MOST_LINES = 500  # in one request


def _storable_all(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """A document all of whose texts can be stored."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(key): _storable_all(inner) for key, inner in value.items()}
    return [_storable_all(inner) for inner in value] if isinstance(value, list) else value


Storable = Annotated[JsonValue, AfterValidator(_storable_all)]


class Process(Asked):
    """A process of an agent: a name that no other has, its host, its version, and the protocol that it speaks."""

    instance: Instance
    host: Line
    version: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.+-]{1,64}$")]
    protocol: Annotated[int, Field(ge=0, le=1_000_000)]


class AskForWork(Process):
    """So many seconds it waits for work."""

    wait_s: Annotated[float, Field(ge=0, le=60)] = 25.0


class AgentLine(Asked):
    """A line of a job's log."""

    time: Moment
    level: Literal["info", "warning", "error"]
    message: Prose


class AgentProgress(Asked):
    """How far a job is."""

    stage: Line | None = None
    files: Number = 0
    bytes: Number = 0
    total_files: Number | None = None
    total_bytes: Number | None = None
    current: Prose | None = None


class ReportOfAgent(Process):
    """How far a job is, in the attempt that it was handed out for."""

    attempt: Annotated[int, Field(ge=1, lt=2**31)]
    progress: AgentProgress | None = None
    lines: Annotated[list[AgentLine], Field(default_factory=list, max_length=MOST_LINES)]


class Open(Asked):
    """What has more keys than are looked at; they are shown as they came."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, Storable]


class ProblemOfAgent(Open):
    """A problem document."""

    type: Line
    title: Prose
    code: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,64}$")]
    detail: Prose = ""
    cause: Prose = ""
    solution: Prose = ""
    transient: bool = False


class SourceOfAgent(Open):
    """What became of one source."""

    name: Line
    type: Line
    error: ProblemOfAgent | None = None


class VerificationOfAgent(Open):
    """What a verification found."""

    ok: bool
    damaged_objects: Number = 0
    missing_objects: Number = 0


class OutcomeOfAgent(Asked):
    """What became of each stage of a run."""

    status: Annotated[int, Field(ge=0, le=255)]
    sources: Annotated[list[SourceOfAgent], Field(default_factory=list, max_length=1000)]
    retention: dict[Literal["keep", "drop"], list[SnapshotId]] | None = None
    verification: VerificationOfAgent | None = None
    hooks: Annotated[list[dict[str, Storable]], Field(default_factory=list)]
    error: ProblemOfAgent | None = None


class ResultOfAgent(Asked):
    """What a run of a policy came to."""

    backups: Annotated[list[SnapshotId], Field(default_factory=list, max_length=1000)]
    dry_run: bool = False
    duration_s: Annotated[float, Field(ge=0)]
    notices: Annotated[list[Prose], Field(default_factory=list, max_length=100)]
    outcome: OutcomeOfAgent


class EndOfAgent(ReportOfAgent):
    """How a job ended; `released` gives it back, to be begun again."""

    status: Literal["succeeded", "failed", "cancelled", "released"]
    result: ResultOfAgent | None = None
    error: ProblemOfAgent | None = None


class HandedJob(TypedDict):
    """A job to be done: what `work` says, which is the policy without anything secret."""

    id: str
    attempt: int
    work: dict[str, Any]


class WorkDocument(TypedDict):
    """A job, or none within the time."""

    job: HandedJob | None


class HeardDocument(TypedDict):
    """Whether the job should end: because somebody cancelled it, or because it was given back."""

    cancel: bool
    lost: bool


class AcceptedDocument(TypedDict):
    """Whether the end counts; it does not if the job was given back before."""

    accepted: bool


class AuthorityDocument(TypedDict):
    """The certificate of the authority, in PEM, and its SHA-256: who joins compares that before anything else."""

    certificate: str
    fingerprint: str
    protocol: int

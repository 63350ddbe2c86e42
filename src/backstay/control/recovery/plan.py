"""What a recovery plan says: steps with their order, each of a type with its own keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from backstay.control.manager.sources import is_database
from backstay.control.policies.origins import Name
from backstay.control.policies.values import Count, Flag, Length, Model, Port, Size, Text, WholePath, Wrong, several
from backstay.operations.findings import Check
from backstay.operations.restore.request import Conflict


def _place(text: str) -> str:
    """A whole path, or the address of a database. Raises Wrong, which does not repeat an address."""
    if is_database(text):
        return text
    if "://" in text:
        raise Wrong("this is neither a directory nor a database", "write postgresql://…, mysql://… or sqlite:///PATH")
    if not text.startswith(("/", "~/")):
        raise Wrong(f"the path {text!r} does not begin with a slash", "nothing says where a relative path begins")
    return text


def _database(text: str) -> str:
    if not is_database(text):
        raise Wrong("this is no address of a database", "write postgresql://…, mysql://… or sqlite:///PATH")
    return text


def _moment(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """An aware time. Raises Wrong."""
    if not isinstance(value, str):
        raise Wrong("a time is written with its zone, as in quotes '2026-11-20 12:34:56+00'")
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise Wrong(f"{value!r} is no time", "write it as '2026-11-20 12:34:56+00'") from None
    if found.tzinfo is None:
        raise Wrong(f"the time {value!r} has no zone", "write it as '2026-11-20 12:34:56+00'")
    return value


Place = Annotated[str, AfterValidator(_place)]
DatabaseAddress = Annotated[str, AfterValidator(_database)]
Moment = Annotated[str, AfterValidator(_moment)]


class Step(Model):
    """What every step has. `stop` lets no further step begin after a failure; `skip` only those that need this one;
    `continue` none: those that need it go on as if it had gone well.
    """

    description: str = ""
    needs: tuple[Name, ...] = ()
    timeout: Length | None = None
    retries: Annotated[Count, Field(le=100)] = 0
    on_error: Literal["stop", "skip", "continue"] = "stop"
    confirm: Text | None = None


class RestoreStep(Step):
    """Restore a backup into a directory or a database; `at` takes the newest that is not later."""

    type: Literal["restore"]
    backup: Text
    to: Place
    source: WholePath | None = None
    at: Moment | None = None
    include: tuple[Text, ...] = ()
    exclude: tuple[Text, ...] = ()
    conflict: Conflict = "fail"
    delete: Flag = False
    validate_before: Flag = False
    verify: Flag = False
    parallel: Annotated[Count, Field(ge=1, le=64)] | None = None
    schemas: tuple[Text, ...] = ()
    tables: tuple[Text, ...] = ()
    owners: Flag = True

    @model_validator(mode="after")
    def _fits(self) -> RestoreStep:
        files = {"source": self.source, "include": self.include, "exclude": self.exclude, "delete": self.delete}
        dumps = {"schemas": self.schemas, "tables": self.tables, "owners": not self.owners}
        unfit, what = (files, "a database") if is_database(self.to) else (dumps, "a directory")
        for key, value in unfit.items():
            if value:
                raise Wrong(f"`{key}` does not go with {what}", "leave it out")
        return self


class ClusterStep(Step):
    """Recover a PostgreSQL cluster into a data directory, to `at` or to the end of its WAL; `start` its server."""

    type: Literal["cluster"]
    cluster: Text
    to: WholePath
    at: Moment | None = None
    port: Port | None = None
    start: Flag = False
    parallel: Annotated[Count, Field(ge=1, le=64)] | None = None


class GraphStep(Step):
    """Bring back the outputs of a graph below a directory, in the order of their dependencies."""

    type: Literal["graph"]
    graph: Text
    to: WholePath
    strategy: Literal["incremental", "full", "selective"] = "incremental"
    nodes: tuple[Text, ...] = ()
    run_commands: Flag = False


class CommandStep(Step):
    """Run a program, which must end with status 0, and print `expect` if that is given."""

    type: Literal["command"]
    command: Annotated[tuple[Text, ...], several(1)]
    directory: WholePath | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    expect: str | None = None


class QueryStep(Step):
    """Ask a database, whose first value must be `expect`; true alone if that is not given."""

    type: Literal["query"]
    connection: DatabaseAddress
    query: Text
    expect: str | int | float | bool | None = None


class FileStep(Step):
    """See that a file or directory is there, and what it is."""

    type: Literal["file"]
    path: WholePath
    min_bytes: Size | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    contains: Text | None = None
    count: Annotated[Count, Field(ge=1)] | None = None


class VerifyStep(Step):
    """Verify a backup before it is restored, or whatever else needs it."""

    type: Literal["verify"]
    backup: Text
    checks: Annotated[tuple[Check, ...], several(1)] = ("integrity", "completeness", "signature")
    read_data: Annotated[Count, Field(le=100)] = 0
    min_bytes: Size | None = None
    at: Moment | None = None


TYPES: Final = ("restore", "cluster", "graph", "command", "query", "file", "verify")


def _which(data: Any) -> str:  # noqa: ANN401
    kind = data.get("type") if isinstance(data, dict) else getattr(data, "type", None)
    return f"<{kind}>"


AnyStep: TypeAlias = Annotated[
    Annotated[RestoreStep, Tag("<restore>")]
    | Annotated[ClusterStep, Tag("<cluster>")]
    | Annotated[GraphStep, Tag("<graph>")]
    | Annotated[CommandStep, Tag("<command>")]
    | Annotated[QueryStep, Tag("<query>")]
    | Annotated[FileStep, Tag("<file>")]
    | Annotated[VerifyStep, Tag("<verify>")],
    Discriminator(_which),
]


def _some(steps: dict[str, AnyStep]) -> dict[str, AnyStep]:
    if not steps:
        raise Wrong("there are no steps", "docs/recovery.md has an example")
    return steps


class RecoveryPlan(Model):
    """A whole file. So many steps that need nothing of each other run at once."""

    description: str = ""
    parallel: Annotated[Count, Field(ge=1, le=16)] = 2
    timeout: Length | None = None
    steps: Annotated[dict[Name, AnyStep], AfterValidator(_some)]


def moment_of(text: str | None) -> datetime | None:
    """The time that a plan names."""
    return None if text is None else datetime.fromisoformat(text)


def names(steps: Sequence[str]) -> str:
    """Names for a message."""
    return ", ".join(steps)

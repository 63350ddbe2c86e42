"""The pipeline as a computation graph: which step makes which file from which, and by what command."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata
from etl_pipeline import cleaning, features, fitting, reporting

GRAPH: Final = "temperatures"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One node: its file, what it is made from, and the function that gets the output's path and those of the inputs.

    What has no function comes from outside, and only a backup can bring it back.
    """

    name: str
    path: str
    intent: str
    deps: tuple[str, ...] = ()
    make: Callable[..., None] | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """How Backstay makes it again, wherever the files may lie then."""
        return ("{python}", "-m", "etl_pipeline", "make", self.name, "{output}", "{inputs}") if self.make else ()


# Each after those that it depends on.
STEPS: Final = (
    Step(name="readings", path="raw/readings.csv", intent="what the sensors sent"),
    Step(name="stations", path="raw/stations.csv", intent="where the sensors are"),
    Step(
        name="clean",
        path="clean/readings.csv",
        intent="one reading for each station and hour, in degrees Celsius",
        deps=("readings",),
        make=cleaning.clean,
    ),
    Step(
        name="train",
        path="features/train.csv",
        intent="four of five readings, for the fit",
        deps=("clean", "stations"),
        make=features.rows_to_fit,
    ),
    Step(
        name="test",
        path="features/test.csv",
        intent="one of five readings, for the test",
        deps=("clean", "stations"),
        make=features.rows_to_test,
    ),
    Step(name="model", path="model/coefficients.json", intent="the linear model", deps=("train",), make=fitting.fit),
    Step(
        name="report",
        path="report/report.md",
        intent="what the model is good for",
        deps=("model", "test"),
        make=reporting.report,
    ),
)
BY_NAME: Final = {step.name: step for step in STEPS}


def run(directory: Path) -> None:
    """Make all files anew from those in `raw/`."""
    for step in STEPS:
        output = directory / step.path
        if step.make is None:
            output.stat()  # what is not there is told before anything is made: the directory may be mistyped
            continue
        output.parent.mkdir(parents=True, exist_ok=True)
        step.make(output, *(directory / BY_NAME[name].path for name in step.deps))


def graph_of(directory: Path) -> MetadataGraph:
    """The graph of the files as they are now."""
    graph = MetadataGraph(GRAPH)
    hashes = {step.name: _sha256(directory / step.path) for step in STEPS}
    for step in STEPS:
        graph.add(
            Node(
                id=step.name,
                hash=hashes[step.name],
                deps=step.deps,
                status="completed",
                agent_id="etl_pipeline",
                metadata=NodeMetadata(
                    input_hashes=tuple(hashes[name] for name in step.deps),
                    output_hashes=(hashes[step.name],),
                    design_intent=step.intent,
                    command=step.command,
                    path=step.path,
                    size=(directory / step.path).stat().st_size,
                ),
            )
        )
    return graph


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

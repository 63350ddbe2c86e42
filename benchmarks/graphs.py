"""A large graph of small outputs: `python -m benchmarks.graphs`.

It is stored, snapshotted twice, loses one node in a hundred, and is restored by another process. Memory is the peak of
the process so far, which holds the graph as well.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from backstay.core.memory import tune_for_large_buffers
from backstay.graph.inputs import Inputs
from backstay.graph.manager import GraphBackupManager, RestoreMeans
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata
from backstay.graph.ordering import order
from backstay.graph.policy import RegenerationPolicy
from backstay.graph.recompute import Recomputers
from backstay.repository.repository import Repository
from backstay.storage.registry import open_backend
from backstay.trust.secrets import Secret

OUTPUT: Final = 1024  # bytes
DEPS: Final = 3  # of each node
LOST: Final = 0.01
REACH: Final = 1000  # how far back a node's deps lie


class Bench:
    """A repository in a scratch directory, and what each stage took."""

    def __init__(self, repository: Repository, nodes: int) -> None:
        self.count, self.repository = nodes, repository
        self.graph = MetadataGraph("benchmark")
        self.manager = GraphBackupManager(self.repository, self.graph)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Tell how long a stage took, by how much the repository grew, and the peak of memory so far."""
        before, begun, worked = self.stored(), time.perf_counter(), time.process_time()
        yield
        took, work, grown = time.perf_counter() - begun, time.process_time() - worked, self.stored() - before
        peak = peak_kib() >> 10
        told = f"{name:<30} {took:7.2f} s {work:7.2f} s of work {grown / (1 << 20):8.2f} MiB new {peak:5} MiB peak"
        print(told, flush=True)

    def stored(self) -> int:
        return sum(info.size for info in self.repository.backend.list())

    def store(self) -> None:
        """Make all outputs and the nodes, in one batch of values."""
        rng = random.Random(1)
        outputs: list[str] = []
        names = [f"n{number}" for number in range(self.count)]
        with self.manager.values.batch() as batch:
            for number in range(self.count):
                deps = sorted({rng.randrange(max(0, number - REACH), number) for _ in range(DEPS)}) if number else []
                inputs = tuple(outputs[dep] for dep in deps)
                outputs.append(batch.store(made(names[number], inputs)))
                self.graph.add(
                    Node(
                        id=names[number],
                        hash=outputs[-1],
                        deps=tuple(names[dep] for dep in deps),
                        status="completed",
                        agent_id="benchmark",
                        metadata=NodeMetadata(
                            capability="expand", input_hashes=inputs, output_hashes=(outputs[-1],), size=OUTPUT
                        ),
                    )
                )

    def lose(self) -> list[str]:
        """The values of some nodes go; which nodes."""
        rng = random.Random(2)
        lost = rng.sample([node.id for node in self.graph], max(1, round(self.count * LOST)))
        for name in lost:
            self.manager.values.delete(self.graph[name].hash or "", force=True)
        return sorted(lost)

    def restore(self, lost: list[str]) -> None:
        """Bring them back; only these may be touched."""
        recomputers = Recomputers()

        @recomputers.recomputes("expand")
        def expand(node: Node, inputs: Inputs) -> bytes:
            return made(node.id, tuple(f"sha256:{hashlib.sha256(one.bytes()).hexdigest()}" for one in inputs.values()))

        report = self.manager.restore_snapshot(
            None, RegenerationPolicy(validate_before_restore=False), RestoreMeans(recomputers=recomputers)
        )
        touched = sorted(node.id for node in report.nodes if node.action != "reused")
        if not report.ok or touched != lost:
            sys.exit(f"touched {len(touched)} nodes, and {len(lost)} were lost: {report}")


def peak_kib() -> int:
    """The greatest resident memory so far; getrusage would count that of the parent, before the program was begun."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def made(name: str, inputs: tuple[str, ...]) -> bytes:
    """The output of a node: bytes that no compression makes smaller."""
    return hashlib.shake_256("\n".join((name, *inputs)).encode()).digest(OUTPUT)


def restore_elsewhere(place: str, key: str, lost: list[str]) -> None:
    """As a program that has nothing but the repository."""
    tune_for_large_buffers()
    with Repository.open(open_backend(place), Secret.parse_keyfile(key)) as repository:
        bench = Bench(repository, len(lost))
        with bench.stage("plan, in another process"):
            bench.manager.plan_restore(None, RegenerationPolicy(validate_before_restore=False))
        with bench.stage("restore those that were lost"):
            bench.restore(lost)
        with bench.stage("restore again, nothing lost"):
            bench.restore([])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--scratch", type=Path, help="where the repository lies meanwhile")
    arguments = parser.parse_args()
    tune_for_large_buffers()  # as the command line does
    secret = Secret.new_keyfile()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as place:
        with Repository.create(open_backend(f"{place}/repository"), secret) as repository:
            bench = Bench(repository, arguments.nodes)
            with bench.stage("store outputs, make nodes"):
                bench.store()
            with bench.stage("check and order"):
                bench.graph.check()
                order(bench.graph.deps)
            with bench.stage("snapshot"):
                bench.manager.create_snapshot()
            with bench.stage("snapshot, nothing changed"):
                bench.manager.create_snapshot()
            with bench.stage("lose one in a hundred"):
                lost = bench.lose()
        task = (f"{place}/repository", secret.printed(), lost)
        child = multiprocessing.get_context("spawn").Process(target=restore_elsewhere, args=task)
        child.start()
        child.join()
    sys.exit(child.exitcode)


if __name__ == "__main__":
    main()

"""Small graphs in a repository in memory, and managers of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backstay.core.events import Event
from backstay.graph.manager import GraphBackupManager
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.repository import Environment, Repository
from backstay.repository.sessions.session import Process
from backstay.storage.backend import StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.testing.clock import FakeClock
from backstay.trust.quorum import QuorumPolicy
from backstay.trust.secrets import Secret

SECRET = Secret.new_keyfile()


class Stored:
    """A repository, its values, and what is told of it. `process` numbers programs, all of which are dead to others."""

    def __init__(self, store: StorageBackend | None = None, *, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.store = store or MemoryStorage(clock=self.clock)
        self.events: list[Event] = []
        self._process = 0
        self.repository = Repository.create(self.store, SECRET, environment=self._environment())
        self.values = ContentAddressableStorage(self.repository)

    def _environment(self) -> Environment:
        self._process += 1
        process = Process("host/machine", "boot", "namespace", 10**9 + self._process, "never")
        return Environment(clock=self.clock, threads=1, process=process, pack_target=64 << 10)

    def open(self, store: StorageBackend | None = None) -> Repository:
        """The repository as another program opens it."""
        return Repository.open(store or self.store, SECRET, environment=self._environment())

    def reopen(self, store: StorageBackend | None = None) -> None:
        """Go on as another program."""
        self.repository = self.open(store)
        self.values = ContentAddressableStorage(self.repository)

    def manager(self, graph: MetadataGraph | None = None, *, quorum: QuorumPolicy | None = None) -> GraphBackupManager:
        return GraphBackupManager(self.repository, graph, quorum=quorum, events=self.events.append)

    def graph(self, outputs: Mapping[str, bytes], *, name: str = "default", deps: Iterable[str] = ()) -> MetadataGraph:
        """A node for each output, all completed, whose values are stored; each depends on `deps`."""
        graph = MetadataGraph(name, timestamp=self.clock.now())
        for node, output in outputs.items():
            graph.add(made(node, self.values.store(output), *deps))
        return graph

    def topics(self) -> list[str]:
        """What was told so far, by topic."""
        return [event.topic for event in self.events if hasattr(event, "topic")]


def made(name: str, value: str, *deps: str) -> Node:
    """A completed node."""
    return Node(id=name, hash=value, deps=deps, status="completed")

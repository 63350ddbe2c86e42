"""A node whose inputs or output are not those that were recorded any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backstay.graph.model import Node
from backstay.graph.produced import Produced
from backstay.graph.recorded_inputs import unmet


def with_inputs(node: Node, deps: Sequence[Node], changed: Mapping[str, str]) -> Node:
    """The node as it has to be made now. `changed` maps ids of outputs that came back different to the new ones.

    Where what is recorded does not name the outputs of its dependencies, these are the inputs.
    """
    recorded = node.metadata.input_hashes
    if not recorded or unmet(recorded, deps) is None:
        return node
    inputs = tuple(changed.get(key, key) for key in recorded)
    if unmet(inputs, deps) is not None:
        inputs = tuple(dep.hash for dep in deps if dep.hash is not None)
    return node.model_copy(update={"metadata": node.metadata.model_copy(update={"input_hashes": inputs})})


def with_output(node: Node, produced: Produced, seconds: float) -> Node:
    """The node with another output, and how long that took to make."""
    outputs = tuple(produced.key if key == node.hash else key for key in node.metadata.output_hashes)
    size = None if node.metadata.size is None else produced.size
    news = {"output_hashes": outputs, "size": size, "computation_time": round(seconds, 6)}
    metadata = node.metadata.model_copy(update=news)
    return node.model_copy(update={"hash": produced.key, "metadata": metadata})

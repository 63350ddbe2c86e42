"""Nodes that fail, and graphs around them."""

from __future__ import annotations

from typing import Any

from backstay.graph.inputs import Inputs
from backstay.graph.model import Node
from tests.graph.worlds import CAPABILITY, World


def failing(world: World, name: str, failure: Any) -> None:
    """Let the recomputation of one node do something else first."""

    @world.recomputers.recomputes(CAPABILITY)
    def make(node: Node, inputs: Inputs) -> Any:
        if node.id == name:
            found = failure()
            if found is not None:
                return found
        return world.make(node, inputs)


def diamond() -> World:
    """`top` is made from `left` and `right`, both from `base`; `alone` has nothing to do with them."""
    world = World()
    world.add("base")
    world.add("left", ["base"])
    world.add("right", ["base"])
    world.add("top", ["left", "right"])
    world.add("alone")
    world.lose("base", "left", "right", "top", "alone")
    return world


def explode() -> None:
    raise ZeroDivisionError("no luck")

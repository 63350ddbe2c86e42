"""What the page on graphs shows works."""

from __future__ import annotations

import re
from pathlib import Path

from backstay.graph.documents import read_document
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata
from backstay.graph.validated import Validated

PAGE = (Path(__file__).parents[2] / "docs" / "graphs.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_first_examples_run() -> None:
    names: dict[str, object] = {}
    for block in blocks("python")[:2]:
        exec(block, names)
    graph = names["graph"]
    assert isinstance(graph, MetadataGraph)
    assert graph.dependants("raw") == ("clean",)


def test_the_document_by_hand_is_read() -> None:
    assert read_document(blocks("json")[0])["clean"].deps == ("raw",)


def test_every_field_is_in_its_table() -> None:
    def described(title: str) -> set[str]:
        table = PAGE.partition(f"| field of {title} |")[2].partition("\n\n")[0]
        return {
            name
            for row in table.splitlines()
            for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
        }

    def fields(model: type[Validated]) -> set[str]:
        return set(model.model_fields)

    assert described("a node") == fields(Node)
    assert described("the metadata") == fields(NodeMetadata)

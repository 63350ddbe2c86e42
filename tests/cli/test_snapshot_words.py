"""What a backup is told to keep with its snapshot, and what it does not take for that."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Account

PG = ("pg", "backup", "postgresql://nobody@127.0.0.1:1/postgres", "--name", "main")


@pytest.mark.parametrize("option", ["--tag", "--host"])
@pytest.mark.parametrize("word", ["", " "])
def test_an_empty_tag_or_host_is_refused(saved: Account, option: str, word: str) -> None:
    """It comes from a variable that is unset: a snapshot with it would not be found, or be that of another host."""
    for command in (("backup", saved.documents), PG):
        told = saved.run(*command, option, word, status=2)
        assert f"the {option.removeprefix('--')} is empty" in told.err
    assert len(saved.json("list")) == 1


def test_an_empty_description_is_none(saved: Account) -> None:
    saved.backup("--description", "")
    assert saved.json("list")[-1]["description"] == ""


@pytest.mark.parametrize("option", ["--tag", "--host", "--description"])
def test_words_that_are_no_text_are_refused(saved: Account, option: str) -> None:
    for command in (("backup", saved.documents), PG):
        assert "is not valid UTF-8" in saved.run(*command, option, "\udcff", status=2).err

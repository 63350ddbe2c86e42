"""Recovery plans as files: what they may say, and how mistakes are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backstay.control.recovery.loading import LoadedPlan, load_plan
from backstay.errors import PlanInvalid

GOOD = """\
steps:
  files: {type: restore, backup: latest:shop, to: /srv/shop}
  rows: {type: query, connection: "postgresql://localhost/shop", query: SELECT 1, needs: [files]}
"""


def load(tmp_path: Path, text: str, **environ: str) -> LoadedPlan:
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    return load_plan(file, environ)


def mistakes(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(PlanInvalid) as found:
        load(tmp_path, text, **environ)
    return [str(mistake).partition("plan.yaml:")[2] for mistake in found.value.mistakes]


def test_waves_are_an_order(tmp_path: Path) -> None:
    text = """
steps:
  last: {type: file, path: /x, needs: [b, c]}
  b: {type: file, path: /x, needs: [a]}
  c: {type: file, path: /x, needs: [a]}
  a: {type: file, path: /x}
"""
    assert load(tmp_path, text).waves() == [["a"], ["b", "c"], ["last"]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("to: /srv/shop", "too: /srv/shop"), "2: steps.files.too: there is no such key (did you mean to?)"),
        (("to: /srv/shop", "to: srv/shop"), "2: steps.files.to: the path 'srv/shop' does not begin with a slash"),
        (("to: /srv/shop", "to: s3://bucket"), "2: steps.files.to: this is neither a directory nor a database"),
        (("type: restore", "type: restor"), "2: steps.files.type: there is no type 'restor' (did you mean restore?)"),
        (("type: restore, ", ""), "2: steps.files.type: is missing (types are restore, cluster"),
        (("needs: [files]", "needs: [file]"), "3: steps.rows.needs[0]: there is no step 'file' (did you mean files?)"),
        (("needs: [files]", "timeout: soon"), "3: steps.rows.timeout: "),
        (("to: /srv/shop", "to: /srv/shop, at: '2026-01-01 12:00'"), "2: steps.files.at: the time"),
        (("to: /srv/shop", "to: /srv/shop, at: yesterday"), "2: steps.files.at: 'yesterday' is no time"),
        (("to: /srv/shop", "to: /srv/shop, schemas: [a]"), "2: steps.files: `schemas` does not go with a directory"),
        (("to: /srv/shop", "to: /srv/shop, needs: [rows]"), "needs: no step of a circle can be first: "),
        (("to: /srv/shop", "to: /srv/shop, conflict: owerwrite"), "did you mean overwrite?"),
        (("SELECT 1", "''"), "3: steps.rows.query: must not be empty"),
        (("steps:", "parallel: 99\nsteps:"), "1: parallel: must be at most 16, not 99"),
        (("/srv/shop", "'${NOWHERE}'"), "2: steps.files.to: the variable NOWHERE is not set"),
        (("files:", "fi/les:"), "'fi/les' is no name"),
    ],
)
def test_mistakes_have_their_line(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    found = mistakes(tmp_path, GOOD.replace(*change))
    assert any(told in one for one in found), found


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = "paralel: 2\nsteps:\n  a: {type: file, path: x}\n  b: {type: command, command: []}\n"
    assert [one.partition(":")[0] for one in mistakes(tmp_path, text)] == ["1", "3", "4"]


@pytest.mark.parametrize(
    "text", ["", "steps: {}", "- a", "steps: {a: 1}", "\0", "steps: [", "steps:\n  a: {type: file}\n"]
)
def test_what_is_no_plan(tmp_path: Path, text: str) -> None:
    assert mistakes(tmp_path, text)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.yaml")
    with pytest.raises(PlanInvalid, match="no regular file"):
        load_plan(tmp_path / "plan.yaml", {})


def test_variables_are_filled_and_kept_out_of_digests(tmp_path: Path) -> None:
    text = 'steps:\n  a: {type: query, connection: "postgresql://${USER}@localhost/x", query: SELECT 1}\n'
    one, other = load(tmp_path, text, USER="a"), load(tmp_path, text, USER="b")
    assert one.digests == other.digests
    assert one.plan != other.plan


def test_secrets_from_variables_are_not_told(tmp_path: Path) -> None:
    text = "steps:\n  a: {type: query, connection: '${URL}', query: SELECT 1}\n"
    (told,) = mistakes(tmp_path, text, URL="oracle://me:hunter2@h/d")
    assert "hunter2" not in told

"""The pipeline finds the law that its sample follows, from data with all that sensors do wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from etl_pipeline.__main__ import main
from etl_pipeline.fitting import least_squares
from etl_pipeline.pipeline import STEPS, graph_of, run
from etl_pipeline.sample import LAW, write_sample
from etl_pipeline.tables import read_table


def test_the_model_is_the_law_of_the_sample(tmp_path: Path) -> None:
    write_sample(tmp_path)
    run(tmp_path)
    model = json.loads((tmp_path / "model/coefficients.json").read_text())
    assert {name: model[name] for name in LAW} == pytest.approx(LAW, abs=0.05)
    assert model["day_sin"] == pytest.approx(0, abs=0.05)
    assert "R² 0.99" in (tmp_path / "report/report.md").read_text()


def test_cleaning_leaves_one_plausible_reading_for_each_station_and_hour(tmp_path: Path) -> None:
    write_sample(tmp_path)
    run(tmp_path)
    raw, clean = read_table(tmp_path / "raw/readings.csv"), read_table(tmp_path / "clean/readings.csv")
    assert {"F"} < {row["unit"] for row in raw}
    assert len(clean) < len(raw)
    assert len({(row["station"], row["time"]) for row in clean}) == len(clean)
    assert all(-40 < float(row["celsius"]) < 45 for row in clean)


def test_a_second_run_makes_the_same_bytes(tmp_path: Path) -> None:
    write_sample(tmp_path)
    run(tmp_path)
    before = {node.id: node.hash for node in graph_of(tmp_path)}
    run(tmp_path)
    assert {node.id: node.hash for node in graph_of(tmp_path)} == before
    assert len(before) == len(STEPS)


@pytest.mark.parametrize(
    ("words", "missing"),
    [(["run", "typo"], "typo/raw/readings.csv"), (["graph", "typo"], "typo/raw/readings.csv"),
     (["make", "clean", "output", "typo"], "typo")],
)  # fmt: skip
def test_what_is_not_there_is_told_in_a_line_and_nothing_is_made(
    words: list[str], missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == f"[Errno 2] No such file or directory: '{missing}'"
    assert not [*tmp_path.iterdir()]


def test_features_that_say_the_same_have_no_best_coefficients() -> None:
    with pytest.raises(ValueError, match="the same in other words"):
        least_squares([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], [1.0, 2.0, 3.0])

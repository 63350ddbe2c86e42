"""What the model is good for, told to people: its coefficients, and its errors on rows that it never saw."""

from __future__ import annotations

import json
import math
from pathlib import Path

from etl_pipeline.features import FEATURES
from etl_pipeline.tables import read_table


def report(output: Path, model: Path, test: Path) -> None:
    """Write the report in Markdown."""
    coefficients: dict[str, float] = json.loads(model.read_text(encoding="utf-8"))
    rows = read_table(test)
    measured = [float(row["celsius"]) for row in rows]
    errors = [predicted(coefficients, row) - value for row, value in zip(rows, measured, strict=True)]
    mean = math.fsum(measured) / len(measured)
    spread = math.fsum((value - mean) ** 2 for value in measured)
    squares = math.fsum(error * error for error in errors)
    tested = f"Tested with {len(rows)} readings: R² {1 - squares / spread:.4f}"
    lines = [
        "# Temperatures",
        "",
        f"{tested}, root mean square error {math.sqrt(squares / len(rows)):.3f} °C.",
        "",
        "| feature | °C |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in coefficients.items()),
    ]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def predicted(coefficients: dict[str, float], row: dict[str, str]) -> float:
    """What the model says of one row, in degrees Celsius."""
    return coefficients["intercept"] + math.fsum(coefficients[name] * float(row[name]) for name in FEATURES)

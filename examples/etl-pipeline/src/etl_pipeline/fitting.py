"""A linear model, fitted by least squares."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from etl_pipeline.features import FEATURES
from etl_pipeline.tables import read_table


def fit(output: Path, train: Path) -> None:
    """Write the coefficients as JSON, by the names of the features and `intercept`."""
    rows = read_table(train)
    table = [[1.0, *(float(row[name]) for name in FEATURES)] for row in rows]
    found = least_squares(table, [float(row["celsius"]) for row in rows])
    model = dict(zip(("intercept", *FEATURES), found, strict=True))
    output.write_text(json.dumps(model, indent=2) + "\n", encoding="utf-8")


def least_squares(table: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """The coefficients with the smallest sum of squared errors, by the normal equations. Raises ValueError."""
    width = len(table[0]) if table else 0
    matrix = [[math.fsum(row[i] * row[j] for row in table) for j in range(width)] for i in range(width)]
    right = [math.fsum(row[i] * value for row, value in zip(table, values, strict=True)) for i in range(width)]
    return solved(matrix, right)


def solved(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Gauss's elimination, each time with the largest pivot of the column. Raises ValueError."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda number: abs(rows[number][column]))
        if not rows or abs(rows[pivot][column]) < 1e-12:
            raise ValueError("the features say the same in other words, so that no coefficients are the best")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in rows[column + 1 :]:
            factor = row[column] / rows[column][column]
            for at in range(column, size + 1):
                row[at] -= factor * rows[column][at]
    found = [0.0] * size
    for number in reversed(range(size)):
        known = math.fsum(rows[number][at] * found[at] for at in range(number + 1, size))
        found[number] = (rows[number][size] - known) / rows[number][number]
    return found

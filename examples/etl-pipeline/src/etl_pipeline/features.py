"""What the model sees of a reading: where the station lies, and the time of the day as a point on a circle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from etl_pipeline.tables import read_table, write_table

FEATURES: Final = ("altitude_km", "latitude", "day_cos", "day_sin")
COLUMNS: Final = (*FEATURES, "celsius")
WARMEST_HOUR: Final = 15
_EVERY: Final = 5  # which part of the readings is kept back to test the model


def rows_to_fit(output: Path, cleaned: Path, stations: Path) -> None:
    """The rows that the model is fitted to."""
    rows = _rows(cleaned, stations)
    write_table(output, COLUMNS, (row for number, row in enumerate(rows) if number % _EVERY))


def rows_to_test(output: Path, cleaned: Path, stations: Path) -> None:
    """The rows that it is tested with."""
    rows = _rows(cleaned, stations)
    write_table(output, COLUMNS, (row for number, row in enumerate(rows) if not number % _EVERY))


def _rows(cleaned: Path, stations: Path) -> Iterator[dict[str, float]]:
    places = {row["station"]: (float(row["altitude_m"]), float(row["latitude"])) for row in read_table(stations)}
    for row in read_table(cleaned):
        altitude, latitude = places[row["station"]]
        angle = 2 * math.pi * (datetime.fromisoformat(row["time"]).hour - WARMEST_HOUR) / 24
        yield {
            "altitude_km": altitude / 1000,
            "latitude": abs(latitude),
            "day_cos": round(math.cos(angle), 9),  # the last digits are not the same on all machines
            "day_sin": round(math.sin(angle), 9),
            "celsius": float(row["celsius"]),
        }

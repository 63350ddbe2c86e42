"""Raw data to try the pipeline with: made-up stations, whose temperatures follow a law that the model should find."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from etl_pipeline.tables import write_table

# Degrees Celsius at sea level on the equator, and what a kilometre, a degree of latitude and the afternoon change.
LAW: Final = {"intercept": 31.0, "altitude_km": -6.5, "latitude": -0.45, "day_cos": 4.0}
NOISE: Final = 0.5
WARMEST_HOUR: Final = 15
STATIONS: Final = (
    ("Aosta", 45.74, 583),
    ("Bergen", 60.39, 12),
    ("Cusco", -13.52, 3399),
    ("Dakar", 14.72, 22),
    ("Esquel", -42.91, 563),
    ("Fairbanks", 64.84, 133),
    ("Gilgit", 35.92, 1500),
    ("Harar", 9.31, 1885),
)
_FIRST: Final = datetime(2024, 3, 20, tzinfo=UTC)


def write_sample(directory: Path, *, days: int = 10, seed: int = 1) -> None:
    """Write `raw/stations.csv` and `raw/readings.csv`; the latter has what sensors do wrong."""
    raw = directory / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    write_table(
        raw / "stations.csv",
        ("station", "latitude", "altitude_m"),
        ({"station": name, "latitude": latitude, "altitude_m": altitude} for name, latitude, altitude in STATIONS),
    )
    columns = ("station", "time", "temperature", "unit")
    write_table(raw / "readings.csv", columns, _readings(days, random.Random(seed)))  # noqa: S311 - the same each time


def _readings(days: int, chance: random.Random) -> Iterator[dict[str, object]]:
    for hour in range(days * 24):
        time = _FIRST + timedelta(hours=hour)
        for name, latitude, altitude in STATIONS:
            angle = 2 * math.pi * (time.hour - WARMEST_HOUR) / 24
            celsius = LAW["intercept"] + LAW["altitude_km"] * altitude / 1000 + LAW["latitude"] * abs(latitude)
            celsius += LAW["day_cos"] * math.cos(angle) + chance.gauss(0, NOISE)
            row: dict[str, object] = {"station": name, "time": time.isoformat(), "temperature": f"{celsius:.2f}"}
            row["unit"] = "C"
            yield from _as_sensors_do(row, celsius, chance)


def _as_sensors_do(row: dict[str, object], celsius: float, chance: random.Random) -> Iterator[dict[str, object]]:
    """One row, as it mostly is, or in Fahrenheit, empty, absurd, or twice."""
    what = chance.random()
    if what < 0.02:
        yield {**row, "temperature": f"{celsius * 9 / 5 + 32:.2f}", "unit": "F"}
    elif what < 0.03:
        yield {**row, "temperature": ""}
    elif what < 0.04:
        yield {**row, "temperature": "-999.00"}
    elif what < 0.05:
        yield from (row, row)
    else:
        yield row

"""Readings without what sensors do wrong: one for each station and hour, in degrees Celsius."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from etl_pipeline.tables import read_table, write_table

COLUMNS: Final = ("station", "time", "celsius")
_COLDEST, _WARMEST = -90.0, 60.0  # degrees Celsius; nothing beyond was ever measured on the ground


def clean(output: Path, readings: Path) -> None:
    """Leave out what is empty, absurd or there already."""
    seen: set[tuple[str, str]] = set()
    rows = []
    for row in read_table(readings):
        celsius = _celsius(row)
        key = (row["station"], row["time"])
        if celsius is not None and key not in seen:
            seen.add(key)
            rows.append({"station": row["station"], "time": row["time"], "celsius": f"{celsius:.2f}"})
    write_table(output, COLUMNS, rows)


def _celsius(row: dict[str, str]) -> float | None:
    if not row["temperature"]:
        return None
    value = float(row["temperature"])
    if row["unit"] == "F":
        value = (value - 32) * 5 / 9
    return value if _COLDEST <= value <= _WARMEST else None

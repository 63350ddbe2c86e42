"""What many schedules cost while nothing is due, and while some are: `python -m benchmarks.scheduling`.

The clock is a fake one, so that an hour passes in seconds; what is told is processor time for each second of that
hour. Jobs are rows that end at once: what runs them is measured elsewhere.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import update

from backstay.catalog.database import Catalog
from backstay.catalog.models import Job
from backstay.control.scheduling.schedules import Schedules
from backstay.control.scheduling.specs import ScheduleSpec
from backstay.control.scheduling.ticker import Ticker
from backstay.testing.clock import FakeClock

EVERY_S = 2.0  # as the service looks
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo")


class Rows:
    """Jobs as rows alone."""

    def __init__(self, catalog: Catalog, clock: FakeClock) -> None:
        self.catalog, self.clock, self.made = catalog, clock, 0

    def create(self, kind: Any, arguments: dict[str, Any], **given: Any) -> None:  # noqa: ANN401
        given["id"] = given.pop("job_id")
        with self.catalog.session() as session:
            session.add(
                Job(kind=kind, arguments=arguments, status="queued", queue="q", created_at=self.clock.now(), **given)
            )
        self.made += 1

    def end(self) -> None:
        with self.catalog.session() as session:
            session.execute(update(Job).where(Job.status == "queued").values(status="succeeded"))


def cron(number: int) -> str:
    """Some each hour, most each day or every six hours: as people write them."""
    minute, hour = number % 60, number // 60 % 24
    return (f"{minute} * * * *", f"{minute} {hour} * * *", f"{minute} */6 * * *", f"{minute} {hour} * * 0")[number % 4]


def measure(url: str, schedules: int, minutes: int) -> dict[str, float | int]:
    clock = FakeClock()
    with Catalog.open(url) as catalog:
        catalog.migrate()
        made, jobs = Schedules(catalog, clock), Rows(catalog, clock)
        begin = time.process_time()
        with catalog.session() as session:
            for number in range(schedules):
                spec = ScheduleSpec(
                    name=f"s{number}", policy=f"p{number}", cron=cron(number), timezone=ZONES[number % len(ZONES)]
                )
                made.create(spec, session=session)
        created = time.process_time() - begin
        ticker = Ticker(made, jobs, clock)
        begin = time.process_time()
        ticker.tick()
        first = time.process_time() - begin
        busy, longest = 0.0, 0.0
        for _ in range(int(minutes * 60 / EVERY_S)):
            clock.advance(EVERY_S)
            begin, wall = time.process_time(), time.perf_counter()
            ticker.tick()
            busy += time.process_time() - begin
            longest = max(longest, time.perf_counter() - wall)
            jobs.end()
    return {
        "schedules": schedules,
        "minutes": minutes,
        "jobs": jobs.made,
        "create_ms_each": round(created / schedules * 1e3, 3),
        "first_tick_s": round(first, 3),
        "longest_tick_s": round(longest, 3),
        "share_of_a_core": round(busy / (minutes * 60), 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="What many schedules cost.")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--database", help="postgresql://…; else SQLite in a scratch directory")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstay-scheduling-") as scratch:
        url = options.database or f"sqlite:///{Path(scratch) / 'catalog.db'}"
        found = measure(url, options.schedules, options.minutes)
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:16} {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

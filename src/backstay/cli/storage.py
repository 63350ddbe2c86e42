"""`check-storage`: see what a store can do before data is entrusted to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from backstay.cli import jsonout
from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, option
from backstay.cli.render import out, print_table
from backstay.core.quantities import format_duration, format_size
from backstay.core.sizes import parse_size
from backstay.errors import StorageUnavailable

if TYPE_CHECKING:
    from backstay.operations.trials.check_storage import StorageReport, Verdict

_STATUS: Final[dict[Verdict, int]] = {"usable": 0, "limited": 1, "unusable": StorageUnavailable.exit_status}
_VERDICT: Final[dict[Verdict, str]] = {
    "usable": "it can hold a repository that several programs write to at the same time",
    "limited": "it cannot decide between writers: only one program at a time may write to a repository in it",
    "unusable": "it cannot hold a repository",
}


def check_storage(
    ctx: typer.Context,
    url: Annotated[str | None, argument("URL", "The store; else -r, BACKSTAY_REPO or the default place.")] = None,
    size: Annotated[str, option("N", "Bytes to move for the figures, such as 256MiB.", show_default=True)] = "32MiB",
) -> int:
    """Try out what a store can do, in a scratch place that is removed again."""
    from backstay.operations.trials.check_storage import check_storage as work
    from backstay.storage.registry import open_backend

    context = context_of(ctx)
    amount = parse_size(size)
    with open_backend(context.location(url).address) as backend, context.watching() as events:
        report = work(backend, size=amount, events=events, clock=context.clock)
    context.result(_document(report), lambda: _show(context, report))
    return _STATUS[report.verdict]


def _document(report: StorageReport) -> dict[str, object]:
    return {
        "address": report.address,
        "verdict": report.verdict,
        "points": jsonout.plain(report.points),
        "figures": jsonout.plain(report.figures),
    }


def _show(context: Context, report: StorageReport) -> None:
    rows = [
        ("yes" if point.ok else "NO" if point.needed_for != "nothing" else "no", point.name, point.details)
        for point in report.points
    ]
    print_table(("", "The store", ""), rows, context.environ)
    if (figures := report.figures) is not None:
        out()
        latency = [
            ("store", figures.put_latency_s, figures.put_rate),
            ("read", figures.get_latency_s, figures.get_rate),
        ]
        speeds = [(what, format_duration(one), f"{format_size(round(rate))}/s") for what, one, rate in latency]
        print_table(("To", ">One small object", ">Large ones, two at a time"), speeds, context.environ)
    out()
    out(f"{report.address}: {_VERDICT[report.verdict]}")

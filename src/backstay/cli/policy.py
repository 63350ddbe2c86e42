"""`policy`: look at policy files before they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.options import argument
from backstay.cli.problems import mistake_document
from backstay.cli.render import out
from backstay.core.quantities import plural
from backstay.errors import Mistake

if TYPE_CHECKING:
    from backstay.control.policies.loading import LoadedPolicies

_FILE = "The policy file; else --config or BACKSTAY_CONFIG."


def policy_check(
    ctx: typer.Context,
    file: Annotated[Path | None, argument("FILE", _FILE)] = None,
) -> int:
    """Tell all mistakes of a policy file, and what it says that does not happen, or not as one may think."""
    from backstay.control.policies.effective import effective, next_times
    from backstay.control.policies.pending import pending

    context = context_of(ctx)
    loaded = context.policies(file)
    remarks = pending(loaded)
    names = loaded.content.names
    times = {
        name: next_times(effective(policy, loaded.content.backup_manager), context.clock.now())
        for name, policy in loaded.content.policies.items()
    }

    def show() -> None:
        warn_of(context, remarks)
        context.say(f"{loaded.file} is good: {plural(len(names), 'policy', 'policies')}")
        if any(times.values()):
            context.say("its times are kept by `backstay serve`; else let cron call `backstay run POLICY`")

    document = {
        "ok": True,
        "file": loaded.file,
        "policies": names,
        "next_times": times,
        "warnings": [mistake_document(remark) for remark in remarks],
    }
    context.result(document, show)
    return 0


def policy_show(
    ctx: typer.Context,
    file: Annotated[str | None, argument("FILE", _FILE)] = None,
    name: Annotated[str | None, argument("NAME", "Only this policy.")] = None,
) -> int:
    """Show what holds in the end, and where it comes from; secrets are left out."""
    from backstay.control.policies.showing import as_document, as_text, show

    context = context_of(ctx)
    loaded, only = _named(context, file, name)
    shown = show(loaded, only)

    def tell() -> None:
        for line in as_text(shown):
            out(line)

    context.result({"file": loaded.file, **{key: as_document(node) for key, node in shown.items()}}, tell)
    return 0


def _named(context: Context, file: str | None, name: str | None) -> tuple[LoadedPolicies, str | None]:
    """The file and the policy that two words mean: one alone is a policy, if a file is named elsewhere and has it."""
    if file is not None and name is None and context.policy_file() is not None and not Path(file).exists():
        return context.policies(), file
    return context.policies(None if file is None else Path(file)), name


def policy_schema(ctx: typer.Context) -> int:
    """Print the JSON Schema of policy files, with which editors complete and check them."""
    from backstay.cli import jsonout
    from backstay.control.policies.schema import schema

    context_of(ctx)
    out(jsonout.line(schema()).rstrip("\n"))
    return 0


def warn_of(context: Context, remarks: list[Mistake]) -> None:
    """Tell what a policy file says that this version does not do by itself."""
    for remark in remarks:
        context.warn(str(remark))

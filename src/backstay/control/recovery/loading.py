"""From a file to a recovery plan: read, filled with variables, checked; all mistakes at once, with their lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from backstay.control.policies.document import Document, Key, read_document
from backstay.control.policies.interpolation import interpolated
from backstay.control.policies.loading import plain
from backstay.control.policies.mistakes import NO_SUCH_KEY, Kind, hint_for, mistakes_of
from backstay.control.policies.values import told_words
from backstay.control.recovery.plan import TYPES, AnyStep, RecoveryPlan
from backstay.errors import Mistake, PlanInvalid, PolicyInvalid


def _types(loc: Key) -> tuple[Sequence[str], str]:
    del loc
    return TYPES, f"types are {told_words(TYPES)}"


PLANS: Final = Kind(model=RecoveryPlan, types=_types)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPlan:
    """A plan without mistakes. `digests` say of each step what it was when it was read, before variables were put in:
    two runs are of one step when they agree.
    """

    file: str
    plan: RecoveryPlan
    digests: Mapping[str, str]

    @property
    def steps(self) -> Mapping[str, AnyStep]:
        return self.plan.steps

    def waves(self) -> list[list[str]]:
        """The steps in an order in which they may run; what stands together needs nothing of each other."""
        sorter = TopologicalSorter({name: step.needs for name, step in self.steps.items()})
        sorter.prepare()
        order, found = list(self.steps), list[list[str]]()
        while sorter.is_active():
            ready = sorted(sorter.get_ready(), key=order.index)
            found.append(ready)
            sorter.done(*ready)
        return found


def load_plan(path: Path, environ: Mapping[str, str]) -> LoadedPlan:
    """The plan of a file. Raises PlanInvalid."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        what = Mistake(
            file=str(path), line=1, key="", message="it is no regular file", hint="write the plan into a file"
        )
        raise PlanInvalid(str(path), [what])
    try:
        written = read_document(path)
    except PolicyInvalid as error:
        raise PlanInvalid(str(path), error.mistakes) from error
    document, unfilled = interpolated(written, environ)
    mistakes, plan = list(document.mistakes), None
    try:
        plan = RecoveryPlan.model_validate(plain(document.root))
    except ValidationError as error:
        found = mistakes_of(error, document, PLANS)
        mistakes += [one for one in found if one.key not in unfilled or one.message == NO_SUCH_KEY]
    if plan is not None:
        mistakes += _of_order(plan, document)
    if mistakes or plan is None:
        raise PlanInvalid(document.file, sorted(mistakes, key=lambda mistake: mistake.line))
    values = plain(written.root)["steps"]
    digests = {name: _digest(values[name]) for name in plan.steps}
    return LoadedPlan(file=str(path), plan=plan, digests=digests)


def _of_order(plan: RecoveryPlan, document: Document) -> Iterator[Mistake]:
    """Steps that need what is not there, or themselves."""
    sound = True
    for name, step in plan.steps.items():
        for at, needed in enumerate(step.needs):
            if needed not in plan.steps:
                sound = False
                hint = hint_for(needed, list(plan.steps))
                yield document.mistake(("steps", name, "needs", at), f"there is no step {needed!r}", hint)
    if not sound:
        return
    try:
        TopologicalSorter({name: step.needs for name, step in plan.steps.items()}).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        told = " needs ".join(reversed(cycle))
        yield document.mistake(("steps", cycle[0], "needs"), f"no step of a circle can be first: {told}")


def _digest(value: Any) -> str:  # noqa: ANN401 - whatever stands in the file
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()

"""What a restore that is tried is asked: queries, and programs that look at the files."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from backstay.control.policies.origins import postgres_address
from backstay.control.policies.values import Length, Model, Text, Wrong, several


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple, dict)):
        raise Wrong("must be text, a number, true, false or null", "`expect` is a list of rows, each a list of these")
    return value


Cell = Annotated[str | int | float | bool | None, BeforeValidator(_plain)]


class Query(Model):
    """A query and the rows that it must give; without `expect` one true value.

    `source` is the name of the source whose database is asked, all if it is not given.
    """

    sql: Text
    expect: tuple[tuple[Cell, ...], ...] | None = None
    source: Text | None = None
    database: Text | None = None


class TriedProgram(Model):
    """A program that must end well; `{scratch}` in its words is where the backup was restored to."""

    command: Annotated[tuple[Text, ...], several(1)]
    source: Text | None = None
    timeout: Length = "1h"


ScratchServer = Annotated[Text, AfterValidator(postgres_address)]

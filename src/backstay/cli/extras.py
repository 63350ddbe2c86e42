"""Parts of the program that need more than the plain installation: what is missing is said, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from backstay.errors import ServerExtraMissing

_OF_THE_SERVER: Final = frozenset(
    {
        "alembic",
        "apprise",
        "argon2",
        "cronsim",
        "dbos",
        "fastapi",
        "prometheus_client",
        "psycopg",
        "sqlalchemy",
    }
    | {"starlette", "uvicorn"}
)


@contextmanager
def server_extra(command: str) -> Iterator[None]:
    """Within, the imports of a command that serves. Raises ServerExtraMissing."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _OF_THE_SERVER:
            raise
        raise ServerExtraMissing(f"`{command}` is not installed", cause=f"the package {name} is missing") from error

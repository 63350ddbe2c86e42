"""Endpoints as they are declared: each says what right it needs, what it does, and how it may answer.

There is no way to declare one without: what needs no right says `PUBLIC`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE"]
LimitKind: TypeAlias = Literal["api", "login", "restore"]


class Public:
    """No right at all is needed, and nobody is asked who they are."""

    def __repr__(self) -> str:
        return "PUBLIC"


PUBLIC: Final = Public()

# What every endpoint may refuse with, beside what it says itself.
_ALWAYS: Final = frozenset({400, 413, 422, 429, 500, 503})
_KNOWN_ONLY: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path.

    `needs` is a permission; `does` the name of what it changes in the audit log, None for what only reads; `creates`
    says that it takes an Idempotency-Key; `limit` is the kind of rate limit that it counts for; `slow` is what reads a
    repository, or a whole table; `probed` what programs ask again and again, some with a query of their own against
    caches, which is not heeded. `answers` gives the shape of each good answer (None for no body), `refuses` the
    statuses of its own refusals.
    """

    method: Method
    path: str
    run: Callable[..., Any]
    section: str
    needs: str | Public
    does: str | None = None
    creates: bool = False
    limit: LimitKind = "api"
    slow: bool = False
    probed: bool = False
    answers: Mapping[int, Any] = field(default_factory=dict)
    media_type: str = "application/json"
    refuses: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """The operation's id in OpenAPI, which clients are made from."""
        return self.run.__name__

    @property
    def summary(self) -> str:
        return (self.run.__doc__ or "").strip().partition("\n")[0].rstrip(".")

    @property
    def description(self) -> str:
        return (self.run.__doc__ or "").strip().partition("\n")[2].strip()

    @property
    def statuses(self) -> frozenset[int]:
        """All statuses that it may refuse with."""
        return self.refuses | _ALWAYS | (frozenset() if isinstance(self.needs, Public) else _KNOWN_ONLY)


class Section:
    """The endpoints about one thing, in the order in which their paths are tried."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.endpoints: list[Endpoint] = []

    def get(
        self,
        path: str,
        *,
        needs: str | Public,
        answers: Any,  # noqa: ANN401 - any type that JSON can have
        refuses: tuple[int, ...] = (),
        media_type: str = "application/json",
        does: str | None = None,
        slow: bool = False,
        probed: bool = False,
    ) -> Callable[[Function], Function]:
        """Declare what reads. `does` only where reading itself is worth a line in the audit log."""
        return self._declare(
            method="GET",
            path=path,
            needs=needs,
            answers={200: answers},
            refuses=refuses,
            media_type=media_type,
            does=does,
            slow=slow,
            probed=probed,
        )

    def post(
        self,
        path: str,
        *,
        needs: str | Public,
        does: str | None,
        answers: Mapping[int, Any],
        refuses: tuple[int, ...] = (),
        creates: bool = False,
        limit: LimitKind = "api",
    ) -> Callable[[Function], Function]:
        """Declare what makes something, or does something."""
        return self._declare(
            method="POST",
            path=path,
            needs=needs,
            does=does,
            answers=answers,
            refuses=(*refuses, 415, *((409,) if creates else ())),
            creates=creates,
            limit=limit,
        )

    def put(
        self,
        path: str,
        *,
        needs: str,
        does: str,
        answers: Any,  # noqa: ANN401
        refuses: tuple[int, ...] = (),
    ) -> Callable[[Function], Function]:
        """Declare what replaces something; `If-Match` is heeded."""
        return self._declare(
            method="PUT", path=path, needs=needs, does=does, answers={200: answers}, refuses=(*refuses, 404, 412, 415)
        )

    def delete(
        self,
        path: str,
        *,
        needs: str,
        does: str,
        answers: Mapping[int, Any] | None = None,
        refuses: tuple[int, ...] = (),
    ) -> Callable[[Function], Function]:
        """Declare what removes or stops something."""
        return self._declare(
            method="DELETE",
            path=path,
            needs=needs,
            does=does,
            answers=answers or {204: None},
            refuses=(*refuses, 404),
        )

    def _declare(self, *, refuses: tuple[int, ...], **given: Any) -> Callable[[Function], Function]:  # noqa: ANN401
        def declared(run: Function) -> Function:
            self.endpoints.append(Endpoint(run=run, section=self.name, refuses=frozenset(refuses), **given))
            return run

        return declared

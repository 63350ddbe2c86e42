"""A client of an application in this process, which waits for each answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import FastAPI


class Loop:
    """One event loop for all clients of an application."""

    def __init__(self, app: FastAPI) -> None:
        self._runner = asyncio.Runner()
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=("127.0.0.1", 4000)), base_url="http://service", timeout=60
        )

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        return self._runner.run(self._http.request(method, path, **given))

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self._runner.run(work)

    def together(self, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        """Answers of requests that are sent at once."""

        async def all_of_them() -> list[httpx.Response]:
            return await asyncio.gather(*(self._http.request(m, p, **given) for m, p, given in requests))

        return self._runner.run(all_of_them())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runner.run(self._http.aclose())
        self._runner.close()


class Client:
    """Somebody with a token, or without."""

    def __init__(self, loop: Loop, token: str | None) -> None:
        self.loop, self.token = loop, token

    def headers(self, given: dict[str, str] | None = None) -> dict[str, str]:
        return ({"Authorization": f"Bearer {self.token}"} if self.token is not None else {}) | (given or {})

    def call(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, **given: Any
    ) -> httpx.Response:
        if body is not None:
            given["json"] = body
        return self.loop.request(method, path, headers=self.headers(headers), **given)

    def ok(self, method: str, path: str, body: Any = None, **given: Any) -> Any:
        """The document of a good answer."""
        found = self.call(method, path, body, **given)
        assert found.status_code < 300, f"{method} {path}: {found.status_code} {found.text}"
        return found.json() if found.content else None

    def refused(self, status: int, method: str, path: str, body: Any = None, **given: Any) -> Any:
        """The problem document of a refusal."""
        found = self.call(method, path, body, **given)
        assert found.status_code == status, f"{method} {path}: {found.status_code} {found.text}"
        assert found.headers["content-type"] == "application/problem+json"
        problem = found.json()
        assert {"type", "title", "status", "detail", "instance", "code", "cause", "solution", "request_id"} <= set(
            problem
        )
        assert problem["status"] == status
        return problem

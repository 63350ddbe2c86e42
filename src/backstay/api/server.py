"""The interface as a server: it listens, answers until it is asked to end, and ends what is open."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import uvicorn

from backstay.api.app import create_app
from backstay.api.backing import ApiOptions
from backstay.api.connections import Connection
from backstay.api.tls import Shown, Tls, address_of, listening
from backstay.control.service.service import Service

GRACE_S: Final = 5  # for answers that are on their way when the end comes
SWITCH_S: Final = (
    0.001  # threads that answer wait for each other less long: measured, a quarter off the slowest answers
)
_LOOK_TICKS: Final = 600  # of uvicorn, which are tenths of a second: between looks for a new certificate
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: Tls | None = None,
    options: ApiOptions | None = None,
    ready: Callable[[str], None] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT, or until `stopped` says so; `ready` is told the address once it answers.

    In the main thread this takes the signals for its time. Raises InvalidRequest, ServiceRunning.
    """
    shown = None if tls is None else Shown(tls, service.warn)
    with listening(host, port, encrypted=shown is not None) as listener:
        app = create_app(service, options)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=GRACE_S,
            ssl_context_factory=None if shown is None else lambda *_: shown.context,
        )
        address = address_of(listener, encrypted=shown is not None)
        server = _Server(
            config,
            closing=app.state.closing,
            ready=lambda: None if ready is None else ready(address),
            stopped=stopped or (lambda: False),
            shown=shown,
        )
        sys.setswitchinterval(SWITCH_S)
        with _settled():
            try:
                server.run([listener])
            finally:
                app.state.backing.close()


@contextmanager
def _settled() -> Iterator[None]:
    """Let the search for garbage leave out what the program is made of.

    That is some hundred thousand objects, which stay. To look through them takes tenths of a second, in which nobody is
    answered.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Server(uvicorn.Server):
    """uvicorn's server; at the end it tells streams, and gives signals back without raising them again."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        closing: threading.Event,
        ready: Callable[[], None],
        stopped: Callable[[], bool],
        shown: Shown | None,
    ) -> None:
        super().__init__(config)
        self._closing, self._ready, self._stopped = closing, ready, stopped
        self._shown = shown

    async def startup(self, sockets: Any = None) -> None:  # noqa: ANN401 - as of uvicorn
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        if self._stopped():
            self.should_exit = True
        if self._shown is not None and counter % _LOOK_TICKS == 0:
            await asyncio.to_thread(self._shown.look)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:  # noqa: ANN401
        self._closing.set()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._asked) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, previous in before.items():
                signal.signal(number, previous)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.force_exit = self.should_exit  # a second signal does not wait for what is open
        self.should_exit = True
        self._closing.set()

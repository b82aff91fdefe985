"""The HTTP server of the page: it drops connections that send nothing, and ends at once."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import uvicorn

from bitplan.planner.page.guard import SLOWEST

MOST = 200  # connections at once; a browser opens six


class LocalServer(uvicorn.Server):
    """A server for a few browsers of one user."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._idle: dict[Any, float] = {}  # connection without a whole request -> since when

    async def on_tick(self, counter: int) -> bool:
        """Drop connections whose request has not begun, or whose head is not whole, after `SLOWEST` seconds."""
        now = time.monotonic()
        self._idle = {each: self._idle.get(each, now) for each in self.server_state.connections if _is_idle(each)}
        for connection, since in self._idle.items():
            if now - since > SLOWEST:
                connection.transport.abort()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all connections and requests without waiting for them: work runs in threads that end with the process."""
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        await asyncio.sleep(0)


def run_server(app: Any, listener: socket.socket) -> None:
    """Serve until interrupted. Raises KeyboardInterrupt."""
    # What fails is answered and reported by the application; uvicorn would print a traceback besides.
    config = uvicorn.Config(app, log_level="critical", limit_concurrency=MOST, server_header=False, lifespan="off")
    LocalServer(config).run(sockets=[listener])


def _is_idle(connection: Any) -> bool:
    cycle = connection.cycle
    return cycle is None or cycle.response_complete

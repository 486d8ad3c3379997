"""A thread that serves HTTP on one port. Knows uvicorn, no route."""

import asyncio
import contextlib
import socket
import threading
from typing import Final

import uvicorn
from starlette.types import ASGIApp

CONNECTIONS: Final = 2048
GRACE: Final = 2  # seconds, for connections that are idle or do not end


class Server(threading.Thread):
    """Listens from construction on, on `port` of every interface (0: any free one); answers once started. Raises
    OSError where the port is taken."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        super().__init__(name="serving", daemon=True)
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        self._socket = socket.create_server(("", port), family=family, backlog=512, dualstack_ipv6=both)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app, loop="asyncio", lifespan="off", log_config=None, access_log=False, server_header=False,
            limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=GRACE, timeout_keep_alive=75,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self.loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._socket])

        asyncio.run(serve())

    def stop(self, seconds: float = 2 * GRACE) -> None:
        """End it and wait, so long at most."""
        self._server.should_exit = True
        if self.is_alive():
            self.join(seconds)
        with contextlib.suppress(OSError):
            self._socket.close()

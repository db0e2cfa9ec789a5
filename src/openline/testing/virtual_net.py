"""Sockets in virtual time: servers and clients of one process talk, and hours of their timers take seconds.

``VirtualNetLoop`` is an ordinary selector loop whose clock moves only when no socket is readable and no callback is
ready. Its network is made of socket pairs inside the process: what one side has written the other can read at once,
so that the order of events depends on nothing outside. Everything above the socket runs as it is: handshakes, frames,
close codes, cut and half-open lines. There is no TLS, no name service and no way out of the process.

picows asks aiofastnet for its connections, not the loop: ``run_virtual_net`` sees that these are of this network too.
Real ones between its ends would be in flight while the clock jumps, and no two runs would be alike.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import aiofastnet

from openline.testing.virtual_time import Quiescent, keep_error

T = TypeVar("T")
FIRST_PORT = 40_000


class _PatientSelector(selectors.DefaultSelector):
    """Looks at the sockets, and waits by moving the loop's clock."""

    loop: VirtualNetLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Quiescent(
                f"expected something to happen after virtual second {self.loop.time():.3f}; "
                "got no ready callback, no timer and no bytes",
                hint="An await in the test waits for something that nobody will do.",
            )
        self.loop.pass_time(timeout)
        return []


class _End(socket.socket):
    """One end of a line. It has no options of TCP, and takes them: picows sets some, whatever its transport is."""

    def setsockopt(self, level: int, *option: Any) -> None:
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *option)

    def getsockopt(self, level: int, *option: Any) -> Any:
        return 0 if level == socket.IPPROTO_TCP else super().getsockopt(level, *option)


class VirtualNetLoop(asyncio.SelectorEventLoop):
    """``time()`` is virtual seconds from 0. ``create_server`` and ``create_connection`` know each other by port only.

    ``unhandled``: errors that asyncio would only have logged. Threads and subprocesses have no place here.
    """

    def __init__(self) -> None:
        selector = _PatientSelector()
        selector.loop = self
        self._now_s = 0.0
        super().__init__(selector)
        self._clock_resolution = 1e-9
        self._servers: dict[int, Callable[[socket.socket], Coroutine[Any, Any, Any]]] = {}
        """What takes a connection, by port."""
        self.unhandled: list[BaseException] = []
        self.set_exception_handler(keep_error)

    def time(self) -> float:
        return self._now_s

    def pass_time(self, timeout: float) -> None:
        self._now_s += timeout

    async def create_server(  # type: ignore[override]  # of typeshed's overloads only what a server here may say
        self, factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """As asyncio's; ``port`` 0 or None takes a free one. Options about sockets mean nothing here."""
        return self.listen(port, lambda there: self.connect_accepted_socket(factory, there))

    def listen(
        self, port: int | None, accept: Callable[[socket.socket], Coroutine[Any, Any, Any]]
    ) -> _Server:
        """Take ``port``, or a free one for 0 and None. Raises OSError where it is taken."""
        port = port or next(free for free in range(FIRST_PORT, 65_536) if free not in self._servers)
        if port in self._servers:
            raise OSError(f"port {port} is taken")
        self._servers[port] = accept
        return _Server(self._servers, port)

    async def create_connection(  # type: ignore[override]  # as above
        self, factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """As asyncio's. ConnectionRefusedError where nobody listens. With ``sock`` it is asyncio's."""
        if options.get("sock") is not None:
            return await super().create_connection(factory, **options)
        return await super().create_connection(factory, sock=await self.dial(port))

    async def dial(self, port: int) -> socket.socket:
        """Our end of a new line to ``port``. Raises ConnectionRefusedError where nobody listens."""
        if port not in self._servers:
            raise ConnectionRefusedError(f"nobody listens on port {port}")
        here, there = (_End(fileno=end.detach()) for end in socket.socketpair())
        for end in (here, there):
            end.setblocking(False)
        await self._servers[port](there)
        return here


class _Server:
    """As much of an asyncio server as servers of ours ask for."""

    def __init__(self, servers: dict[int, Any], port: int) -> None:
        self._servers = servers
        self._port = port
        self.sockets = (self,)

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    def is_serving(self) -> bool:
        return self._port in self._servers

    def close(self) -> None:
        self._servers.pop(self._port, None)

    async def wait_closed(self) -> None:
        return


@contextmanager
def _aiofastnet_of(loop: VirtualNetLoop) -> Iterator[None]:
    """aiofastnet's transports, between the socket pairs of ``loop``."""
    names = vars(aiofastnet)
    real = {name: names[name] for name in ("create_connection", "create_server")}

    async def create_server(_: Any, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return loop.listen(port, lambda there: aiofastnet.connect_accepted_socket(loop, factory, there))

    async def create_connection(
        _: Any, factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        sock = options.get("sock") or await loop.dial(port)
        return await real["create_connection"](loop, factory, sock=sock)

    names.update(create_connection=create_connection, create_server=create_server)
    try:
        yield
    finally:
        names.update(real)


def run_virtual_net(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end; tasks that it left are cancelled.

    Raises what ``main`` raises; Quiescent if it can never end; else the first error that asyncio would only have
    logged.
    """
    loop = VirtualNetLoop()
    with _aiofastnet_of(loop), asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main)
    if loop.unhandled:
        raise loop.unhandled[0]
    return result

"""The server of a gateway: one port, the realtime door and the control API behind it, and its end."""

from __future__ import annotations

import asyncio
import logging
import ssl as tls

from openline.ports import LanguageModel
from openline.runtime.gateway import Gateway
from openline.server.admission import RESPONSES_PATH, Admission, admit
from openline.server.api import MAX_RESPONSES_BYTES, create_app
from openline.server.control import ControlApi
from openline.server.listener import Listener, serve
from openline.server.problem import Reject
from openline.server.realtime import RealtimeConnection
from openline.server.responses import ResponsesApi, ResponsesConnection
from openline.server.socket import ClientSocket, SocketHandler
from openline.server.upgrade import Accept, SocketLimits, UpgradeRequest
from openline.wire.client_events import MAX_EVENT

log = logging.getLogger("openline.server")


class Server:
    """``open``, then ``drain`` and ``close``. The gateway is started before and closed after."""

    def __init__(self, gateway: Gateway, control: ControlApi, model: LanguageModel) -> None:
        self._gateway = gateway
        self._control = control
        self.responses = ResponsesApi(gateway, model)
        self._listener: Listener | None = None

    async def open(self, host: str, port: int, ssl: tls.SSLContext | None) -> int:
        """Listen; the port. Raises ConfigError when the address cannot be bound."""
        app = create_app(self._control, responses=self.responses)
        self._listener = await serve(app, self._accept, host, port, ssl)
        return self._listener.port

    async def _accept(self, request: UpgradeRequest) -> Accept | Reject:
        admission = await admit(request, self._control.auth, self._control)
        if isinstance(admission, Reject):
            return admission
        if self._gateway.is_draining:
            message = "The gateway is shutting down; connect again in a moment."
            return Reject(503, "server_draining", message, headers=(("Retry-After", "2"),))

        if request.path.rstrip("/") == RESPONSES_PATH:
            return self._accept_responses(admission)

        def handler(socket: ClientSocket) -> SocketHandler:
            return RealtimeConnection(socket, self._gateway, admission, request)

        return Accept(handler, admission.subprotocol, limits=SocketLimits(max_frame_bytes=MAX_EVENT))

    def _accept_responses(self, admission: Admission) -> Accept | Reject:
        if not admission.principal.may_control:
            message = "A client secret opens /v1/realtime only; send an API key."
            return Reject(403, "client_secret_not_allowed", message)
        tenant = admission.principal.tenant
        return Accept(
            lambda socket: ResponsesConnection(socket, self.responses, tenant),
            limits=SocketLimits(max_frame_bytes=MAX_RESPONSES_BYTES),
        )

    async def close(self) -> None:
        """Running replies end (bounded), clients are told to come back, everything closes."""
        if self._listener is None:
            return
        # The port stays open while replies end: observers and health checks still see us; new calls get 503.
        await self._gateway.drain()
        self._listener.close()
        self.responses.close()
        for driver in list(self._gateway.drivers.values()):
            for client in list(driver.clients.values()):
                client.close(4503, "shutting down")
        try:
            async with asyncio.timeout(5):
                await self._listener.wait_closed()
        except TimeoutError:
            self._listener.abort()
        await asyncio.sleep(0.05)  # The closes of the last sockets become detach facts in this time.

"""The HTTP control API and the console's files, as a Starlette application over ``GatewayPort``.

Handlers translate: HTTP in, one call of the gateway, HTTP out. What a route is called, takes and answers is
in ``routes``; who may call it is decided in front of all of them by ``Guard``.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from openline.errors import ClientProtocolError, OpenlineError
from openline.server import metrics, openapi, secrets
from openline.server.admission import authenticate
from openline.server.auth import Principal, check_origin
from openline.server.console_files import ConsoleFiles
from openline.server.gateway_port import GatewayPort
from openline.server.problem import Refusal, Reject, reject_for
from openline.server.recording import recording_response
from openline.server.responses import ResponsesApi, answer_post, delete_stored, read_input, read_stored
from openline.server.responses_makers import Page
from openline.server.routes import ROUTES, RouteSpec
from openline.server.streams import Streams, choose_form
from openline.types import Seq, SessionId
from openline.wire.reasoning import SEALED

log = logging.getLogger("openline.server")

MAX_BODY_BYTES = 256 * 1024
"""A request body; the largest is a session object with its tools."""
MAX_RESPONSES_BYTES = 32 * 1024 * 1024
"""A request for a response, over HTTP or WebSocket: it may hold images and a whole conversation."""
BODY_TIMEOUT_S = 10.0
DEFAULT_PAGE, MAX_PAGE = 100, 1000
MAX_SAY_CHARS, MAX_REASON_CHARS = 4096, 64
MAX_TYPES = 100
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")

Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    gateway: GatewayPort,
    *,
    files: ConsoleFiles | None = None,
    streams: Streams | None = None,
    responses: ResponsesApi | None = None,
) -> Starlette:
    """The application. It holds no state of its own but how many streams are open.

    Runs without ASGI lifespan. Logs the type of an unexpected error, never a path's query or a body.
    """
    handlers = Handlers(gateway, files or ConsoleFiles(), streams or Streams(), responses)
    routes = [_route(spec, handlers) for spec in ROUTES]
    middleware = [Middleware(Guard, gateway=gateway, routes=routes)]
    origins = sorted(gateway.auth.allowed_origins)
    if origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID", "Range", "X-API-Key"],
            expose_headers=["ETag", "Content-Range", "Accept-Ranges"],
            max_age=600,
        )
        middleware.insert(0, cors)
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={
            Refusal: _answer_refusal,
            OpenlineError: _answer_error,
            HTTPException: _answer_http_error,
            Exception: _answer_failure,
        },
    )


def _route(spec: RouteSpec, handlers: Handlers) -> Route:
    handler: Handler = getattr(handlers, spec.operation)
    path = spec.path.replace("{file}", "{file:path}")
    return Route(path, handler, methods=[spec.method], name=spec.operation)


class Guard:
    """Lets a request through when its route is public or its sender may use the control API.

    In front of routing, so that a route added later is closed unless the table says otherwise, and an
    unknown path tells nothing to a stranger.
    """

    def __init__(self, app: ASGIApp, *, gateway: GatewayPort, routes: list[Route]) -> None:
        self._app = app
        self._gateway = gateway
        self._public = [route for route, spec in zip(routes, ROUTES, strict=True) if spec.is_public]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_public(scope):
            request = Request(scope)
            outcome = await self._judge(request)
            if isinstance(outcome, Reject):
                # The body was not read and is not wanted: the connection ends with the answer.
                response = _response(outcome)
                response.headers["Connection"] = "close"
                await response(scope, receive, send)
                return
            request.state.principal = outcome
        await self._app(scope, receive, send)

    def _is_public(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is not Match.NONE for route in self._public)

    async def _judge(self, request: Request) -> Principal | Reject:
        policy = self._gateway.auth
        try:
            principal = await authenticate(policy, request.headers, self._gateway)
        except OpenlineError as error:
            return reject_for(error)
        if isinstance(principal, Reject):
            return principal
        if not principal.may_control:
            return Reject(
                403, "client_secret_not_allowed", "A client secret opens /v1/realtime only; send an API key."
            )
        return check_origin(policy, request.headers, principal) or principal


class Handlers:
    """One method for each row of the route table."""

    def __init__(
        self, gateway: GatewayPort, files: ConsoleFiles, streams: Streams, responses: ResponsesApi | None
    ) -> None:
        self._responses = responses
        self._gateway = gateway
        self._files = files
        self._streams = streams
        self._openapi = msgspec.json.encode(openapi.build(ROUTES, gateway.version))

    # -- sessions

    async def list_sessions(self, request: Request) -> Response:
        limit = _integer(request, "limit", DEFAULT_PAGE, low=1, high=MAX_PAGE)
        rows = await self._gateway.sessions(
            _tenant(request),
            status=request.query_params.get("status") or None,
            limit=limit + 1,  # one more than asked for tells whether there is a next page
            before=request.query_params.get("before", ""),
        )
        page = [
            {
                "id": row.session,
                "object": "openline.session",
                "status": row.status,
                "epoch": row.epoch,
                "node": row.node,
                "last_seq": row.last_seq,
                "created_ms": row.created_ms,
                "updated_ms": row.updated_ms,
            }
            for row in rows[:limit]
        ]
        return _json(
            msgspec.json.encode(
                {
                    "object": "list",
                    "data": page,
                    "has_more": len(rows) > limit,
                    "last_id": page[-1]["id"] if page else None,
                }
            )
        )

    async def show_session(self, request: Request) -> Response:
        return _json(await self._gateway.session(_tenant(request), _session_id(request)))

    async def session_facts(self, request: Request) -> Response:
        self._streams.admit()
        after = _after(request)
        if not after.isascii() or not (after or "0").isdigit() or len(after) > 18:
            raise _invalid("after", "a seq, which is an integer of at least 0")
        source = await self._gateway.facts(
            _tenant(request),
            _session_id(request),
            after=Seq(int(after or 0)),
            follow=_flag(request, "follow"),
        )
        return self._streams.response(source, choose_form(request.headers.get("accept", "")))

    async def transcript(self, request: Request) -> Response:
        return _json(await self._gateway.transcript(_tenant(request), _session_id(request)))

    async def recording(self, request: Request) -> Response:
        source = await self._gateway.recording(_tenant(request), _session_id(request))
        if source is None:
            message = "The session has no recording: it was off, or its retention has passed."
            raise Refusal(Reject(404, "no_recording", message))
        return await recording_response(request, source)

    async def end_session(self, request: Request) -> Response:
        body = await _read_object(request, ("reason",))
        reason = body.get("reason", "api")
        if not isinstance(reason, str) or not 1 <= len(reason) <= MAX_REASON_CHARS:
            raise _invalid("reason", f"a text of 1 to {MAX_REASON_CHARS} characters")
        return _json(await self._gateway.end_session(_tenant(request), _session_id(request), reason))

    async def delete_session(self, request: Request) -> Response:
        session = _session_id(request)
        await self._gateway.delete_session(_tenant(request), session)
        return _json(msgspec.json.encode({"id": session, "object": "openline.session", "deleted": True}))

    async def say(self, request: Request) -> Response:
        body = await _read_object(request, ("text", "interrupt"))
        text, interrupt = body.get("text"), body.get("interrupt", False)
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_SAY_CHARS:
            raise _invalid("text", f"a text of 1 to {MAX_SAY_CHARS} characters")
        if not isinstance(interrupt, bool):
            raise _invalid("interrupt", "true or false")
        receipt = await self._gateway.say(_tenant(request), _session_id(request), text, interrupt=interrupt)
        return _json(receipt, 202)

    # -- the feed

    async def events(self, request: Request) -> Response:
        self._streams.admit()
        types = [name.strip() for name in request.query_params.get("types", "").split(",") if name.strip()]
        if len(types) > MAX_TYPES:
            raise _invalid("types", f"at most {MAX_TYPES} types")
        session = request.query_params.get("session")
        source = await self._gateway.feed(
            _tenant(request),
            after=_after(request),
            types=types,
            session=SessionId(session) if session else None,
            follow=_flag(request, "follow"),
        )
        return self._streams.response(source, choose_form(request.headers.get("accept", "")))

    # -- realtime

    async def realtime_without_upgrade(self, request: Request) -> Response:
        message = "This is a WebSocket; connect with ws:// or wss:// on a connection of its own."
        raise Refusal(
            Reject(
                426, "upgrade_required", message, headers=(("Upgrade", "websocket"), ("Connection", "close"))
            )
        )

    async def create_client_secret(self, request: Request) -> Response:
        asked = secrets.parse_request(await _read_body(request))
        session = self._gateway.realtime_session(asked.session)
        secret = secrets.mint(self._gateway.random_bytes(secrets.RANDOM_BYTES))
        expires_ms = self._gateway.now_ms() + asked.seconds * 1000
        stored = secrets.StoredSecret(_tenant(request), expires_ms, msgspec.Raw(session))
        await secrets.store_secret(self._gateway.values, secret, stored)
        return _json(secrets.response_body(secret, expires_ms, session))

    # -- responses

    async def create_response(self, request: Request) -> Response:
        body = await _read_body(request, MAX_RESPONSES_BYTES)
        return await answer_post(self._responses_api(), _tenant(request), body)

    async def show_response(self, request: Request) -> Response:
        api = self._responses_api()
        response_id, sealed = request.path_params["response_id"], _wants_sealed(request)
        return _json(await read_stored(api, _tenant(request), response_id, sealed=sealed))

    async def delete_response(self, request: Request) -> Response:
        api = self._responses_api()
        return _json(await delete_stored(api, _tenant(request), request.path_params["response_id"]))

    async def response_input(self, request: Request) -> Response:
        query = request.query_params
        page = Page.of(query.get("limit"), query.get("order"), query.get("after"))
        api, response_id = self._responses_api(), request.path_params["response_id"]
        sealed = _wants_sealed(request)
        return _json(await read_input(api, _tenant(request), response_id, page, sealed=sealed))

    async def compact_response(self, request: Request) -> Response:
        message = "This gateway does not compact conversations; send the input you want to go on with."
        raise ClientProtocolError(message, code="unsupported_value")

    async def cancel_response(self, request: Request) -> Response:
        message = "Only background responses are cancelled by this path, and this gateway makes none."
        raise ClientProtocolError(message, code="unsupported_value")

    async def responses_without_upgrade(self, request: Request) -> Response:
        return await self.realtime_without_upgrade(request)

    def _responses_api(self) -> ResponsesApi:
        if self._responses is None:
            raise Refusal(Reject(404, "unknown_path", "This gateway has no language model."))
        return self._responses

    # -- operation

    async def live(self, request: Request) -> Response:
        return _json(b'{"status":"live"}')

    async def ready(self, request: Request) -> Response:
        readiness = self._gateway.readiness()
        body = {"status": "ready" if readiness.is_ready else "not_ready", "reasons": readiness.reasons}
        return _json(msgspec.json.encode(body), 200 if readiness.is_ready else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(metrics.render(self._gateway.metrics()), media_type=metrics.CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        return _json(self._openapi)

    # -- the console

    async def console(self, request: Request) -> Response:
        return self._files.response(request, "")

    async def console_file(self, request: Request) -> Response:
        return self._files.response(request, request.path_params["file"])

    async def home(self, request: Request) -> Response:
        return RedirectResponse("/console")


# ------------------------------------------------------------------------------------- reading requests


def _tenant(request: Request) -> str:
    return cast(Principal, request.state.principal).tenant


def _session_id(request: Request) -> SessionId:
    text: str = request.path_params["session_id"]
    if not _SESSION_ID.fullmatch(text):
        raise _invalid("session_id", "8 to 64 letters, digits, '-' or '_'")
    return SessionId(text)


def _after(request: Request) -> str:
    # A browser that reconnects repeats the URL, so what it saw last counts more than its first `after`.
    return request.headers.get("last-event-id") or request.query_params.get("after", "")


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "0")
    if value not in ("0", "1", "false", "true"):
        raise _invalid(name, "0 or 1")
    return value in ("1", "true")


def _integer(request: Request, name: str, default: int, *, low: int, high: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 18 or not low <= int(text) <= high:
        raise _invalid(name, f"an integer from {low} to {high}")
    return int(text)


def _wants_sealed(request: Request) -> bool:
    """``include`` as a query: stock clients write ``include[]=``."""
    query = request.query_params
    return SEALED in (*query.getlist("include[]"), *query.getlist("include"))


async def _read_body(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """Raises Refusal: 413 over the limit, 408 when it does not arrive in time."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    message = f"Expected a body of at most {limit} bytes."
                    raise Refusal(Reject(413, "body_too_large", message, headers=(("Connection", "close"),)))
    except TimeoutError as error:
        message = f"Expected the whole body within {BODY_TIMEOUT_S:g} s."
        raise Refusal(Reject(408, "body_timeout", message, headers=(("Connection", "close"),))) from error
    return bytes(body)


async def _read_object(request: Request, fields: tuple[str, ...]) -> dict[str, object]:
    body = await _read_body(request)
    try:
        decoded = msgspec.json.decode(body or b"{}", type=dict[str, object])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ClientProtocolError(
            "Invalid request body: expected a JSON object.", code="invalid_json"
        ) from error
    for name in decoded:
        if name not in fields:
            raise ClientProtocolError(f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
    return decoded


def _invalid(param: str, expected: str) -> ClientProtocolError:
    return ClientProtocolError(
        f"Invalid value for '{param}': expected {expected}.", code="invalid_value", param=param
    )


# ------------------------------------------------------------------------------------- writing responses


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, {"Cache-Control": "no-store"}, "application/json")


def _response(reject: Reject) -> Response:
    response = _json(reject.body(), reject.status)
    for name, value in reject.headers:
        response.headers[name] = value
    return response


async def _answer_refusal(request: Request, error: Exception) -> Response:
    return _response(cast(Refusal, error).reject)


async def _answer_error(request: Request, error: Exception) -> Response:
    reject = reject_for(cast(OpenlineError, error))
    if reject.status >= 500:
        log.error("http: %s failed with %s", _operation(request), type(error).__name__, exc_info=error)
    return _response(reject)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    http = cast(HTTPException, error)
    code = {404: "unknown_path", 405: "method_not_allowed"}.get(http.status_code, "http_error")
    headers = tuple((http.headers or {}).items())
    return _response(Reject(http.status_code, code, str(http.detail), headers=headers))


async def _answer_failure(request: Request, error: Exception) -> Response:
    if not isinstance(error, ClientDisconnect):
        log.error("http: %s failed with %s", _operation(request), type(error).__name__)
    return _response(Reject(500, "internal_error", "The gateway failed. Its log says why."))


def _operation(request: Request) -> str:
    endpoint = request.scope.get("endpoint")
    return getattr(endpoint, "__name__", "request")

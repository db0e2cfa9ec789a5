"""The HTTP API in one table: the application is routed by it and the OpenAPI document is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Parameter:
    """``schema``: JSON Schema. Path parameters are required, others are not."""

    name: str
    place: Literal["path", "query", "header"]
    help: str
    schema: Json


@dataclass(frozen=True, slots=True)
class Answer:
    """``media``: content type → JSON Schema; empty for a response without a body."""

    status: int
    help: str
    media: dict[str, Json]


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """``operation``: the method of ``Handlers`` that answers. ``is_public``: needs no key."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    operation: str
    summary: str
    answers: tuple[Answer, ...]
    parameters: tuple[Parameter, ...] = ()
    body: Json | None = None
    is_public: bool = False
    problems: tuple[int, ...] = ()


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(status: int, help: str, schema: Json) -> Answer:
    return Answer(status, help, {"application/json": schema})


_STRING: Json = {"type": "string"}
_OBJECT: Json = {"type": "object"}
_BOOLEAN: Json = {"type": "boolean"}
_FLAG: Json = {"type": "string", "enum": ["0", "1"], "default": "0"}

_SESSION_ID = Parameter(
    "session_id", "path", "The session's id.", {"type": "string", "pattern": "^[A-Za-z0-9_-]{8,64}$"}
)
_FOLLOW = Parameter("follow", "query", "1: go on with what becomes durable.", _FLAG)
_LAST_EVENT_ID = Parameter(
    "Last-Event-ID", "header", "Set by a browser that comes back; counts when `after` is not given.", _STRING
)
_EVENTS = Answer(
    200,
    "CloudEvents 1.0, one for each line or event; which form, `Accept` says (NDJSON if it does not).",
    {"application/x-ndjson": _ref("CloudEvent"), "text/event-stream": {"type": "string"}},
)
_BINARY: Json = {"type": "string", "format": "binary"}

ROUTES: tuple[RouteSpec, ...] = (
    RouteSpec(
        "GET",
        "/v1/sessions",
        "list_sessions",
        "Sessions, newest first",
        (_json(200, "One page.", _ref("SessionList")),),
        (
            Parameter(
                "limit",
                "query",
                "Sessions on a page.",
                {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
            ),
            Parameter("before", "query", "Id of the last session of the page before.", _STRING),
            Parameter("status", "query", "Only sessions in this state.", _STRING),
        ),
        problems=(400,),
    ),
    RouteSpec(
        "GET",
        "/v1/sessions/{session_id}",
        "show_session",
        "One session's state",
        (_json(200, "The session.", _OBJECT),),
        (_SESSION_ID,),
        problems=(404,),
    ),
    RouteSpec(
        "GET",
        "/v1/sessions/{session_id}/facts",
        "session_facts",
        "A session's durable record, in order",
        (_EVENTS,),
        (
            _SESSION_ID,
            Parameter(
                "after",
                "query",
                "Seq to go on after.",
                {"type": "integer", "minimum": 0, "default": 0},
            ),
            _FOLLOW,
            _LAST_EVENT_ID,
        ),
        problems=(400, 404),
    ),
    RouteSpec(
        "GET",
        "/v1/sessions/{session_id}/transcript",
        "transcript",
        "What was said and what was heard",
        (_json(200, "The transcript.", _OBJECT),),
        (_SESSION_ID,),
        problems=(404,),
    ),
    RouteSpec(
        "GET",
        "/v1/sessions/{session_id}/recording.wav",
        "recording",
        "The recording as WAV",
        (
            Answer(200, "All of it.", {"audio/wav": _BINARY}),
            Answer(206, "The range asked for.", {"audio/wav": _BINARY}),
            Answer(304, "Not changed since the ETag given.", {}),
        ),
        (
            _SESSION_ID,
            Parameter("Range", "header", "One range, `bytes=FIRST-LAST`.", _STRING),
            Parameter("If-None-Match", "header", "An ETag.", _STRING),
        ),
        problems=(404, 416),
    ),
    RouteSpec(
        "POST",
        "/v1/sessions/{session_id}/end",
        "end_session",
        "End a session",
        (_json(200, "Its state; the end is durable.", _OBJECT),),
        (_SESSION_ID,),
        body={
            "type": "object",
            "properties": {"reason": {"type": "string", "maxLength": 64, "default": "api"}},
            "additionalProperties": False,
        },
        problems=(400, 404, 409),
    ),
    RouteSpec(
        "DELETE",
        "/v1/sessions/{session_id}",
        "delete_session",
        "Forget a session that nobody is connected to: its log and its recording",
        (_json(200, "It is gone, from the files too.", _OBJECT),),
        (_SESSION_ID,),
        problems=(404, 409),
    ),
    RouteSpec(
        "POST",
        "/v1/sessions/{session_id}/say",
        "say",
        "Have the agent say a text",
        (_json(202, "Accepted and durable.", _OBJECT),),
        (_SESSION_ID,),
        body={
            "type": "object",
            "required": ["text"],
            "properties": {
                "text": {"type": "string", "minLength": 1, "maxLength": 4096},
                "interrupt": {**_BOOLEAN, "default": False},
            },
            "additionalProperties": False,
        },
        problems=(400, 404, 409),
    ),
    RouteSpec(
        "GET",
        "/v1/events",
        "events",
        "The feed: facts of all sessions in the store's order",
        (_EVENTS,),
        (
            Parameter("after", "query", "Opaque cursor to go on after; the `id` of an event.", _STRING),
            Parameter("types", "query", "Fact types, separated by commas; `x.*` is a prefix.", _STRING),
            Parameter("session", "query", "Only this session.", _STRING),
            _FOLLOW,
            _LAST_EVENT_ID,
        ),
        problems=(400, 404),
    ),
    RouteSpec(
        "GET",
        "/v1/realtime",
        "realtime_without_upgrade",
        "The WebSocket (OpenAI Realtime); answers 101 to a handshake",
        (Answer(101, "The WebSocket is open.", {}),),
        (
            Parameter("model", "query", "Name of the model.", _STRING),
            Parameter("openline", "query", "1: opt in to `openline.*` frames.", _FLAG),
            Parameter("server_tools", "query", "'shown': show the tools that the gateway runs.", _STRING),
            Parameter("session_id", "query", "Create this session, or attach to it.", _STRING),
        ),
        problems=(404, 426),
    ),
    RouteSpec(
        "POST",
        "/v1/realtime/client_secrets",
        "create_client_secret",
        "Make a short-lived secret for a browser",
        (_json(200, "The secret, told once.", _ref("ClientSecret")),),
        body={
            "type": "object",
            "properties": {
                "expires_after": {
                    "type": "object",
                    "properties": {
                        "anchor": {"type": "string", "const": "created_at"},
                        "seconds": {"type": "integer", "minimum": 10, "maximum": 7200, "default": 600},
                    },
                    "additionalProperties": False,
                },
                "session": _OBJECT,
            },
            "additionalProperties": False,
        },
        problems=(400,),
    ),
    RouteSpec(
        "GET",
        "/v1/responses",
        "responses_without_upgrade",
        "The WebSocket (OpenAI Responses, WebSocket mode); answers 101 to a handshake",
        (Answer(101, "The WebSocket is open.", {}),),
        problems=(426,),
    ),
    RouteSpec(
        "POST",
        "/v1/responses",
        "create_response",
        "Ask the gateway's language model for a response (OpenAI Responses)",
        (
            Answer(
                200,
                "The response, or its events when `stream` is true.",
                {"application/json": _OBJECT, "text/event-stream": {"type": "string"}},
            ),
        ),
        body=_OBJECT,
        problems=(400,),
    ),
    RouteSpec(
        "GET",
        "/v1/responses/{response_id}",
        "show_response",
        "A stored response",
        (_json(200, "The response.", _OBJECT),),
        (Parameter("response_id", "path", "The response's id.", _STRING),),
        problems=(404,),
    ),
    RouteSpec(
        "DELETE",
        "/v1/responses/{response_id}",
        "delete_response",
        "Forget a stored response's id: it can no longer be read or continued",
        (_json(200, "It is forgotten.", _OBJECT),),
        (Parameter("response_id", "path", "The response's id.", _STRING),),
        problems=(404,),
    ),
    RouteSpec(
        "GET",
        "/v1/responses/{response_id}/input_items",
        "response_input",
        "The input items of a stored response's request",
        (_json(200, "One page.", _OBJECT),),
        (
            Parameter("response_id", "path", "The response's id.", _STRING),
            Parameter(
                "limit",
                "query",
                "Items on a page.",
                {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
            ),
            Parameter(
                "order",
                "query",
                "By age; newest first if it does not say.",
                {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
            ),
            Parameter("after", "query", "Id of the last item of the page before.", _STRING),
        ),
        problems=(400, 404),
    ),
    RouteSpec(
        "POST",
        "/v1/responses/compact",
        "compact_response",
        "Not offered: a conversation is compacted by no model of this gateway",
        (),
        body=_OBJECT,
        problems=(400,),
    ),
    RouteSpec(
        "POST",
        "/v1/responses/{response_id}/cancel",
        "cancel_response",
        "Not offered: only background responses are cancelled so, and there are none",
        (),
        (Parameter("response_id", "path", "The response's id.", _STRING),),
        problems=(400,),
    ),
    RouteSpec(
        "GET",
        "/health/live",
        "live",
        "Whether the process answers",
        (_json(200, "It does.", _OBJECT),),
        is_public=True,
    ),
    RouteSpec(
        "GET",
        "/health/ready",
        "ready",
        "Whether new sessions are taken",
        (
            _json(200, "They are.", _ref("Readiness")),
            _json(503, "They are not, for these reasons.", _ref("Readiness")),
        ),
        is_public=True,
    ),
    RouteSpec(
        "GET",
        "/metrics",
        "metrics",
        "Metrics for Prometheus",
        (Answer(200, "Text exposition format 0.0.4.", {"text/plain": {"type": "string"}}),),
    ),
    RouteSpec(
        "GET",
        "/openapi.json",
        "openapi",
        "This document",
        (_json(200, "OpenAPI 3.1.", _OBJECT),),
    ),
    RouteSpec(
        "GET",
        "/console",
        "console",
        "The console",
        (Answer(200, "A page.", {"text/html": {"type": "string"}}),),
        is_public=True,
        problems=(404,),
    ),
    RouteSpec(
        "GET",
        "/console/{file}",
        "console_file",
        "A file of the console",
        (
            Answer(200, "The file.", {"*/*": _BINARY}),
            Answer(304, "Not changed since the ETag given.", {}),
        ),
        (Parameter("file", "path", "Path inside the console.", _STRING),),
        is_public=True,
        problems=(404,),
    ),
    RouteSpec(
        "GET",
        "/",
        "home",
        "Redirects to the console",
        (Answer(307, "To /console.", {}),),
        is_public=True,
    ),
)

SCHEMAS: dict[str, Json] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code", "param"],
                "properties": {
                    "message": _STRING,
                    "type": _STRING,
                    "code": {"type": ["string", "null"]},
                    "param": {"type": ["string", "null"]},
                },
            }
        },
    },
    "Session": {
        "type": "object",
        "required": ["id", "object", "status", "epoch", "node", "last_seq", "created_ms", "updated_ms"],
        "properties": {
            "id": _STRING,
            "object": {"type": "string", "const": "openline.session"},
            "status": _STRING,
            "epoch": {"type": "integer", "minimum": 0},
            "node": _STRING,
            "last_seq": {"type": "integer", "minimum": 0},
            "created_ms": {"type": "integer", "description": "Unix milliseconds."},
            "updated_ms": {"type": "integer", "description": "Unix milliseconds."},
        },
    },
    "SessionList": {
        "type": "object",
        "required": ["object", "data", "has_more", "last_id"],
        "properties": {
            "object": {"type": "string", "const": "list"},
            "data": {"type": "array", "items": _ref("Session")},
            "has_more": _BOOLEAN,
            "last_id": {"type": ["string", "null"], "description": "Give it as `before` for the next page."},
        },
    },
    "CloudEvent": {
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"type": "string", "const": "1.0"},
            "id": _STRING,
            "source": _STRING,
            "type": _STRING,
            "time": {"type": "string", "format": "date-time"},
            "data": {},
        },
    },
    "ClientSecret": {
        "type": "object",
        "required": ["value", "expires_at", "session"],
        "properties": {
            "value": {"type": "string", "pattern": "^ek_[0-9a-f]{32}$"},
            "expires_at": {"type": "integer", "description": "Unix seconds."},
            "session": _OBJECT,
        },
    },
    "Readiness": {
        "type": "object",
        "required": ["status", "reasons"],
        "properties": {
            "status": {"type": "string", "enum": ["ready", "not_ready"]},
            "reasons": {"type": "array", "items": _STRING},
        },
    },
}

"""The OpenAPI 3.1 document, made from the route table. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from openline.server.routes import SCHEMAS, Answer, Json, Parameter, RouteSpec


def build(routes: Iterable[RouteSpec], version: str) -> Json:
    """``version``: of Openline; the document's own version."""
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Openline",
            "version": version,
            "description": "Control API of the Openline gateway. The WebSocket is `/v1/realtime`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "security": [{"bearer": []}],
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of the settings."}
            },
        },
    }


def _operation(route: RouteSpec) -> Json:
    answers = {str(answer.status): _answer(answer) for answer in route.answers}
    problems = route.problems if route.is_public else (*route.problems, 401, 403)
    for status in problems:
        answers.setdefault(str(status), _problem(status))
    operation: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": answers,
    }
    if route.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in route.parameters]
    if route.body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": route.body}}}
    if route.is_public:
        operation["security"] = []
    return operation


def _parameter(parameter: Parameter) -> Json:
    described: Json = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.help,
        "schema": parameter.schema,
    }
    if parameter.place == "path":
        described["required"] = True
    return described


def _answer(answer: Answer) -> Json:
    described: Json = {"description": answer.help}
    if answer.media:
        described["content"] = {kind: {"schema": schema} for kind, schema in answer.media.items()}
    return described


def _problem(status: int) -> Json:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }

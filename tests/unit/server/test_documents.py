"""What is made from tables: the OpenAPI document and the metrics; and the arithmetic of ranges."""

from __future__ import annotations

import inspect
import json
from typing import Any

import jsonschema
import pytest

from openline.server import metrics, openapi
from openline.server.api import Handlers
from openline.server.problem import Refusal
from openline.server.recording import choose_range
from openline.server.routes import ROUTES, SCHEMAS

DOCUMENT: Any = json.loads(json.dumps(openapi.build(ROUTES, "1.2.3")))


def test_every_route_is_listed_and_has_a_handler() -> None:
    listed = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert listed == {(route.method, route.path) for route in ROUTES}
    for route in ROUTES:
        assert inspect.iscoroutinefunction(getattr(Handlers, route.operation)), route.operation
    operations = [route.operation for route in ROUTES]
    assert len(set(operations)) == len(operations)


def test_the_document_is_valid_openapi() -> None:
    validator = pytest.importorskip(
        "openapi_spec_validator", reason="openapi-spec-validator is not installed; shape is tested below"
    )
    validator.validate(DOCUMENT)


def test_the_document_has_the_shape_of_openapi_3_1() -> None:
    """The rules of the specification that a table can break, without the validator's package."""
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == "1.2.3"
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            assert operation["responses"]
            assert all(answer["description"] for answer in operation["responses"].values())
            in_path = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert all(p["required"] for p in operation.get("parameters", []) if p["in"] == "path")
            is_public = operation.get("security") == []
            assert is_public != ("401" in operation["responses"])


def test_every_schema_is_a_schema_and_every_reference_points_at_one() -> None:
    def schemas(node: Any) -> list[Any]:
        if isinstance(node, list):
            return [found for part in node for found in schemas(part)]
        if not isinstance(node, dict):
            return []
        own = [node["schema"]] if "schema" in node else []
        return own + [found for part in node.values() for found in schemas(part)]

    for schema in [*schemas(DOCUMENT["paths"]), *SCHEMAS.values()]:
        jsonschema.Draft202012Validator.check_schema(schema)
    text = json.dumps(DOCUMENT)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in SCHEMAS


def test_metrics_are_prometheus_text() -> None:
    text = metrics.render(
        [
            metrics.value_of("openline_facts_total", "counter", "Facts\nwritten.", 12),
            metrics.Metric(
                "openline_commit_seconds",
                "histogram",
                "Time.",
                (
                    metrics.Sample(1, (("le", "0.005"),), "_bucket"),
                    metrics.Sample(2, (("le", "+Inf"),), "_bucket"),
                    metrics.Sample(0.25, suffix="_sum"),
                    metrics.Sample(2, suffix="_count"),
                ),
            ),
            metrics.Metric("openline_odd", "gauge", "", (metrics.Sample(float("nan"), (("a", 'q"\\\n'),)),)),
        ]
    ).decode()
    assert text.splitlines() == [
        "# HELP openline_facts_total Facts\\nwritten.",
        "# TYPE openline_facts_total counter",
        "openline_facts_total 12",
        "# HELP openline_commit_seconds Time.",
        "# TYPE openline_commit_seconds histogram",
        'openline_commit_seconds_bucket{le="0.005"} 1',
        'openline_commit_seconds_bucket{le="+Inf"} 2',
        "openline_commit_seconds_sum 0.25",
        "openline_commit_seconds_count 2",
        "# HELP openline_odd ",
        "# TYPE openline_odd gauge",
        'openline_odd{a="q\\"\\\\\\n"} NaN',
    ]
    assert text.endswith("\n")
    assert metrics.render([]) == b""
    assert metrics.render([metrics.value_of("x", "gauge", "", float("inf"))]).endswith(b"x +Inf\n")


@pytest.mark.parametrize(
    ("header", "bounds"),
    [
        (None, None),
        ("bytes=0-9", (0, 9)),
        ("bytes=5-", (5, 99)),
        ("bytes=90-200", (90, 99)),
        ("bytes=-10", (90, 99)),
        ("bytes=-1000", (0, 99)),
        ("bytes=99-99", (99, 99)),
        ("bytes=-", None),
        ("bytes=9-5", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=" + "9" * 50 + "-", None),
    ],
)
def test_one_range_is_served_and_others_are_ignored(
    header: str | None, bounds: tuple[int, int] | None
) -> None:
    assert choose_range(header, 100) == bounds


@pytest.mark.parametrize(("header", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=-5", 0)])
def test_a_range_outside_is_416_with_the_size(header: str, size: int) -> None:
    with pytest.raises(Refusal) as error:
        choose_range(header, size)
    assert error.value.reject.status == 416
    assert ("Content-Range", f"bytes */{size}") in error.value.reject.headers

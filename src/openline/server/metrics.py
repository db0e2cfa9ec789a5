"""Metrics as Prometheus text (exposition format 0.0.4). Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line. ``suffix``: "_bucket", "_sum" or "_count" of a histogram, else ""."""

    value: float
    labels: tuple[tuple[str, str], ...] = ()
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A family. ``name`` has its unit in it (``…_seconds``, ``…_bytes``) and, for counters, ``_total``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[Sample, ...]


def value_of(name: str, kind: Literal["counter", "gauge"], help: str, value: float) -> Metric:
    """A family of one sample without labels."""
    return Metric(name, kind, help, (Sample(value),))


def render(metrics: Iterable[Metric]) -> bytes:
    lines: list[str] = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {_escape_help(metric.help)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        lines.extend(
            f"{metric.name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}"
            for sample in metric.samples
        )
    return ("\n".join(lines) + "\n").encode() if lines else b""


def _labels(labels: Sequence[tuple[str, str]]) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escape_label(value)}"' for name, value in labels)
    return f"{{{inside}}}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    return _escape_help(text).replace('"', '\\"')

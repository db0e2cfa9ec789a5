"""The harness against a gateway of its own: the generator measures, the callers time, the table shows."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import wave
from array import array
from pathlib import Path
from typing import Any

import pytest

from bench import carried, latency, results, run
from bench.build import build
from bench.caller import read_wav
from bench.gateway import Gateway, free_port
from bench.generator import run_load
from bench.load_file import Load, Target, all_loads, read_load
from bench.table import BEGIN, END, replace_in, table
from openline.core.value import replace
from openline.testing.histogram import bucket, bucket_top_us
from openline.testing.scripts import scripted_speech

pytestmark = pytest.mark.slow  # processes, and audio in real time
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: no load generator")
FAKE = Path(__file__).parent / "fake_gateway.py"


def fake(load: Load, *, port: int, data: Path) -> list[str]:
    model = str(load.gateway["model"])
    return [sys.executable, str(FAKE), "--port", str(port), "--data", str(data), "--model", model]


def load_named(name: str, **changes: Any) -> Load:
    return replace(next(load for load in all_loads() if load.name == name), **changes)


@needs_compiler
def test_the_generator_carries_a_load_with_turns_and_tools_and_times_both_ways() -> None:
    load = load_named("relay_log")
    load = replace(load, gateway={"model": "scripted:load,reply_ms=400"})
    load.client.update(speech_ms=200, stagger_ms=200, ramp_ms=100)
    with Gateway(load, fake) as gateway:
        result = run_load(load, gateway, sessions=4, warmup_s=1, seconds_s=2)
    assert result["ready"] == 4 and result["errors"] == result["lost"] == result["stalls"] == 0
    assert result["turns"] >= 6 and result["tool_calls"] >= 2
    assert result["per_s"]["frames_up"] == pytest.approx(200, rel=0.1)
    for lane in ("audio", "text", "held", "reply", "up", "committed"):
        assert 0 < result[lane]["p50_ms"] < 500, lane
    quiet = {"p99_ms": 1.0, "n": 400, "per_s": 200.0}
    assert carried.faults(load, {**result, "void": False, "audio": quiet, "text": quiet, "up": quiet}) == []
    assert carried.faults(load, {**result, "void": False, "audio": quiet, "text": quiet, "up": None}) != []
    assert result["gateway"]["rss_mb"] > 5 and 0 < result["gateway"]["core"] <= 1.2


@needs_compiler
@pytest.mark.parametrize("mode", ["vad", "manual", "items"])
def test_callers_and_upstream_of_the_generator_understand_each_other(mode: str) -> None:
    program = build()
    assert program is not None
    port = str(free_port())
    options = (
        f"--port {port} --upstream {port} --mode {mode} --sessions 8 --warmup 0.2 --seconds 1.5 --ramp-ms 50"
    )
    options += " --speech-ms 100 --reply-ms 200 --stagger-ms 100 --item-rate 50"
    done = subprocess.run([str(program), *options.split()], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["ready", "measuring", "result"]
    result = events[-1]
    assert result["errors"] == result["stalls"] == result["lost"] == 0
    if mode == "items":
        assert result["held"]["n"] == pytest.approx(8 * 25 * 1.5, rel=0.15)
    else:
        assert result["turns"] > 8 and result["tool_calls"] > 2 and result["audio"]["n"] > 50


@needs_compiler
def test_wrong_options_of_the_generator_are_named() -> None:
    program = build()
    assert program is not None
    for wrong in (["--port", "x"], ["--bogus", "1"], ["--port", "1", "--mode", "loud"], []):
        done = subprocess.run([str(program), *wrong], capture_output=True, text=True)
        assert done.returncode == 2 and "--sessions 1..20000" in done.stderr


def test_a_gateway_that_ends_at_once_shows_its_last_words(tmp_path: Path) -> None:
    def broken(load: Load, *, port: int, data: Path) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('port is taken')"]

    with pytest.raises(RuntimeError, match="port is taken"):
        Gateway(load_named("resume"), broken, data=tmp_path).start()


def _spoken_wav(path: Path) -> None:
    with wave.open(str(path), "wb") as target:
        target.setparams((1, 2, 24_000, 0, "NONE", ""))
        target.writeframes(scripted_speech("hello", 300))


@pytest.mark.parametrize("kind", ["embedded", "barge_in", "resume", "restart"])
def test_each_latency_scenario_finds_its_times(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "AUDIO", tmp_path)
    _spoken_wav(tmp_path / "said.wav")
    # Every frame must begin with the mark, so nothing may be trimmed to what is loud.
    with wave.open(str(tmp_path / "said.wav")) as source:
        said = memoryview(source.readframes(10**6)).cast("h")
    monkeypatch.setattr(latency, "read_wav", lambda _path: array("h", said))
    name = {"embedded": "embedded_latency"}.get(kind, kind)
    load = load_named(name, gateway={"model": "scripted"})
    load.run.update(
        silence_ms=100, vad_window_ms=60, phrase="said.wav", prompt="long", after_s=0.2, away_s=0.05
    )

    async def story() -> tuple[list[float], int]:
        with Gateway(load, fake) as gateway:
            if kind == "restart":
                return await latency.restart(load, gateway, 1)
            scenario = {"embedded": latency.embedded, "barge_in": latency.barge_in, "resume": latency.resume}
            return await scenario[kind](load, gateway, 2)

    times_ms, lost = asyncio.run(story())
    assert lost == 0
    assert all(0 < time_ms < 5000 for time_ms in times_ms), times_ms


def test_recordings_are_read_at_24_khz_without_their_silence(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as target:
        target.setparams((1, 2, 16_000, 0, "NONE", ""))
        target.writeframes(bytes(3200) + (b"\x00\x20" * 1600) + bytes(3200))
    samples = read_wav(path)
    assert len(samples) == pytest.approx(2400, abs=3)
    assert set(samples[2:-2]) == {0x2000}


def test_every_load_file_reads_and_a_wrong_key_is_refused(tmp_path: Path) -> None:
    names = {load.name for load in all_loads()}
    assert names >= {
        "relay_log",
        "full",
        "embedded_latency",
        "barge_in",
        "durable",
        "resume",
        "restart",
        "memory",
        "replay",
    }
    for text in (
        'what="x"\nkind="load"\nspeed=3\n[[target]]\nlabel=""\nmetric="a"\nunit="ms"\n',
        'what="x"\nkind="load"\n',
    ):
        path = tmp_path / "wrong.toml"
        path.write_text(text)
        with pytest.raises(ValueError, match=r"wrong\.toml: expected keys"):
            read_load(path)


def test_a_processor_is_told_by_more_than_its_name() -> None:
    core = "processor\t: {}\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\ncache size\t: 512 KB\n\n"
    assert results.processor(core.format(0) + core.format(1)) == (
        "AMD EPYC (family 25, model 1, 512 KB cache)",
        2,
    )
    assert results.processor("processor\t: 0\nBogoMIPS\t: 50.00\n") == ("", 1)
    assert results.processor("") == ("", 1)


def test_a_verdict_is_the_best_bound_that_is_reached() -> None:
    floor = Target("", "sessions", "sessions", must=300, goal=400, stretch=500, is_floor=True)
    ceiling = Target("", "ms.p50", "ms", must=50, goal=20)
    given = [
        (floor, 299.0),
        (floor, 400.0),
        (floor, 900.0),
        (ceiling, 50.0),
        (ceiling, 51.0),
        (ceiling, None),
    ]
    verdicts = [results.verdict(target, value) for target, value in given]
    assert verdicts == ["missed", "goal", "stretch", "must", "missed", "-"]
    assert results.value_of({"ms": {"p50": 3}}, ceiling) == 3
    assert results.value_of({"ms": None}, ceiling) is None


def test_the_table_stands_between_its_marks_and_admits_what_was_not_measured() -> None:
    load = load_named("resume")
    measured = {
        "resume": {
            "name": "resume",
            "at": "2026-11-23T10:00:00+00:00",
            "commit": "abc",
            "machine": {"cpu": "X", "cores": 2, "system": "Linux 6", "python": "CPython 3.11"},
            "values": {"p50": 7.25},
        }
    }
    measured["replay"] = measured["resume"] | {"name": "replay", "at": "2026-11-24T10:00:00+00:00"}
    measured["full"] = measured["resume"] | {
        "name": "full",
        "at": "2026-11-25T10:00:00+00:00",
        "machine": {"cpu": "Y", "cores": 1, "system": "Linux 6", "python": "CPython 3.11"},
    }
    fresh = table([load], measured)
    assert fresh.splitlines()[-3:] == [
        "Y, 1 cores, Linux 6, CPython 3.11: full (2026-11-25, abc).",
        "",
        "X, 2 cores, Linux 6, CPython 3.11: replay (2026-11-24, abc), resume (2026-11-23, abc).",
    ]
    assert fresh.splitlines()[2] == f"| **{load.what}** | | | | | |"
    assert "| p50 | 7.25 ms | 50 | 20 |  | goal |" in fresh
    assert "p99 | not measured | 50 | 20 |  | - |" in fresh
    free = load_named("barge_in")
    assert "shown" not in table([free], {}) and "with the window" in table([free], {}, is_whole=True)
    assert replace_in(f"a\n{BEGIN}\nold\n{END}\nb\n", fresh) == f"a\n{BEGIN}\n{fresh}{END}\nb\n"
    with pytest.raises(ValueError, match="expected the lines"):
        replace_in("no marks", fresh)


@needs_compiler
def test_both_histograms_have_the_same_buckets(tmp_path: Path) -> None:
    given = [0, 1, 31, 32, 63, 64, 65, 100, 999, 1000, 12345, 10**6, 10**9, 2**31, 2**40]
    source = tmp_path / "b.c"
    calls = "".join(
        f'h=(histogram){{0}}; histogram_add(&h,{us}ll*1000); printf("%d %.3f\\n",bucket_of({us}ll),histogram_ms(&h,99));'
        for us in given
    )
    source.write_text(f'#include "histogram.h"\nint main(void){{histogram h;{calls}return 0;}}')
    program = tmp_path / "b"
    folder = Path(run.__file__).parent / "load"
    subprocess.run(["cc", f"-I{folder}", "-o", str(program), str(source)], check=True)
    told = [line.split() for line in subprocess.check_output([str(program)], text=True).splitlines()]
    assert [int(index) for index, _ms in told] == [bucket(us) for us in given]
    assert [float(ms) for _index, ms in told] == [round(bucket_top_us(bucket(us)) / 1000, 3) for us in given]

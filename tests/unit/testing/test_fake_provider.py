"""The fake providers as a program and from tests without a loop; their page is made from what they can do."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import get_args

import pytest

from openline.testing.fake_provider import COMMANDS, fake_provider, fault_of, reference
from openline.testing.fake_responses_parts import RESPONSES_FAULTS, FaultKind

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "fake-provider.md"


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "python tools/make_fake_provider_doc.py"


def test_every_fault_of_the_responses_side_is_told() -> None:
    assert set(RESPONSES_FAULTS) == set(get_args(FaultKind))
    assert fault_of(["close", "4", "1011"]).code == 1011 and fault_of(["close", "4"]).after == 4
    assert fault_of(["error", "0", "server_error", "503"]).status == 503


def test_a_test_without_a_loop_commands_both() -> None:
    with fake_provider() as fake:
        assert fake.command("realtime open http:503 ok") == {"opens": ["http:503", "ok"]}
        assert fake.command("realtime state") == {"connections": 0}
        assert fake.command('realtime set formats ["audio/pcm"]') == {"formats": ["audio/pcm"]}
        assert fake.call(lambda providers: providers.realtime.formats) == {"audio/pcm"}
        assert fake.command('realtime set transcription "refused"') == {"transcription": "refused"}
        assert fake.command("responses fault refuse 0 invalid_api_key 401") == {"faults": 1}
        asked = urllib.request.Request(
            f"{fake.responses_url}/responses",
            b'{"model":"m","input":"hi"}',
            {"Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked)
        assert refused.value.code == 401
        refused.value.close()
        with urllib.request.urlopen(asked) as answer:
            assert json.load(answer)["status"] == "completed"
        assert fake.command("responses refuse Not that.") == {"replies": 1}
        with urllib.request.urlopen(asked) as answer:
            assert json.load(answer)["output"][0]["content"] == [{"type": "refusal", "refusal": "Not that."}]
        assert fake.command("responses reason They greet.") == {"replies": 1}
        with urllib.request.urlopen(asked) as answer:
            thought, said = json.load(answer)["output"]
        assert thought["summary"] == [{"type": "summary_text", "text": "They greet."}]
        assert said["content"][0]["text"] == "You said: hi"
        assert fake.command("responses state")["requests"] == 4
        assert fake.call(lambda providers: providers.realtime.port) > 0
        assert set(fake.command("help")) == set(COMMANDS)


@pytest.mark.parametrize(
    "line",
    ["nonsense", "realtime open bogus", "realtime reply bogus", "realtime set _plans 1", "realtime set plan 1",
     "realtime do bogus", "realtime do freeze", "responses fault bogus", "responses fault close x"],
)  # fmt: skip
def test_a_command_that_is_none_says_what_was_expected(line: str) -> None:
    with fake_provider() as fake, pytest.raises(ValueError, match=r"expected|invalid literal"):
        fake.command(line)


def test_as_a_program_it_says_where_it_is_and_answers_each_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "openline.testing.fake_provider"],
        input="realtime reply half_then_close:1011 one two\n\nrealtime set cap_s 5\nbogus\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    urls, planned, capped, wrong = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 0 and set(urls) == {"realtime", "responses"}
    assert (planned, capped) == ({"planned": "half_then_close:1011"}, {"cap_s": 5})
    assert wrong["error"].startswith("expected one of")

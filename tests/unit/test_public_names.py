"""The package's public names, and that what does not need them does not load them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import openline


def loaded_by(statement: str) -> set[str]:
    """Modules in a fresh process after ``statement``."""
    code = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", openline.__all__)
def test_every_public_name_can_be_imported_and_is_listed(name: str) -> None:
    assert getattr(openline, name) is not None
    assert name in dir(openline)


def test_a_name_that_does_not_exist_is_refused_as_any_module_does() -> None:
    with pytest.raises(AttributeError, match="module 'openline' has no attribute 'Agnet'"):
        _ = openline.Agnet  # type: ignore[attr-defined]  # the mistake is the test


def test_a_speech_worker_loads_neither_the_agent_api_nor_the_runtime() -> None:
    loaded = loaded_by(
        "import openline.adapters.tts_espeak_worker, openline.adapters.stt_pocketsphinx_worker"
    )
    assert "openline.adapters.worker_process" in loaded
    assert not {"openline.agent", "openline.runtime", "openline.core.session"} & loaded


def test_the_command_that_serves_loads_the_gateway_only_when_it_runs() -> None:
    loaded = loaded_by("import openline.cli.serve")
    assert "openline.settings" in loaded
    assert not {"openline.bootstrap", "openline.core.session", "starlette", "picows"} & loaded


def test_a_gateway_loads_no_model_before_one_was_chosen() -> None:
    loaded = loaded_by("import openline.bootstrap")
    assert "openline.runtime.gateway" in loaded
    assert not {"openline.rules", "openline.testing.link_load", "openline.adapters.stt_pocketsphinx"} & loaded


def test_the_overview_of_commands_loads_none_of_them() -> None:
    loaded = loaded_by(
        "import sys; from openline.cli.main import main\n"
        "out, sys.stdout = sys.stdout, sys.stderr\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    sys.stdout = out"
    )
    assert "openline.cli.main" in loaded
    assert not {"openline.bootstrap", "openline.cli.serve", "openline.cli.doctor", "asyncio"} & loaded

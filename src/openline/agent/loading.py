"""Find the agent that ``openline serve module:name`` names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from openline.agent.agent import Agent
from openline.errors import ConfigError


def load_agent(reference: str) -> Agent:
    """The ``Agent`` object at ``module:name`` (name defaults to "agent"); the working directory is searched too.

    Raises ConfigError that says what was not found or is not an agent.
    """
    module_name, _, name = reference.partition(":")
    if module_name.endswith(".py"):
        module_name = Path(module_name).stem
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise ConfigError(
            f"agent: expected a module to import; there is no '{module_name}' here.",
            hint="Give it as module:name, for example 'my_agent:agent', from the folder it is in.",
        ) from error
    finally:
        sys.path.pop(0)
    agent = getattr(module, name or "agent", None)
    if not isinstance(agent, Agent):
        raise ConfigError(
            f"agent: expected '{module_name}:{name or 'agent'}' to be an openline.Agent; "
            f"got {type(agent).__name__}."
        )
    return agent

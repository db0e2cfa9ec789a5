"""Speech and language plugins of LiveKit Agents as our ports, without a room, a job or a worker of theirs.

    from livekit.plugins import deepgram, openai
    from openline import Agent
    from openline.adapters.livekit_plugins import hears, speaks, thinks

    agent = Agent(stt=hears(deepgram.STT()), tts=speaks(openai.TTS()), llm=thinks(openai.LLM()))

Needs the extra ``livekit-plugins`` and the plugins' own packages. docs/decisions/0010 says why this and no adapter
of our own for each provider. Plugins never retry here: the runtime does, and says so.
"""

from __future__ import annotations

from openline.adapters.livekit_plugins.detector import PluginDetectors as detects
from openline.adapters.livekit_plugins.ears import PluginRecognizer as hears
from openline.adapters.livekit_plugins.model import PluginModel as thinks
from openline.adapters.livekit_plugins.voice import PluginSynthesizer as speaks

__all__ = ["detects", "hears", "speaks", "thinks"]

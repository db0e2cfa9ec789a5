"""The faults of the fake Realtime provider by name, each with what it does. docs/reference/fake-provider.md is made of
these."""

from __future__ import annotations

OPEN_FAULTS = {
    "ok": "nothing wrong",
    "close": "accepted, then closed at once: ``close:CODE`` (1000, 1001, 1008, 1011, 4000 …; 1005 is a close frame "
    "without a code, 1006 a cut line)",
    "http": "refused before the upgrade: ``http:STATUS``; ``http:200`` is a page, and no WebSocket server",
    "key": "``error`` invalid_api_key and close 4000, as OpenAI refuses a key",
    "model": "``error`` model_not_found and close 4000",
    "quota": "``error`` insufficient_quota and close 4000",
    "silent": "the socket is open, and nothing is ever said: no ``session.created``",
    "slow": "``session.created`` comes late: ``slow:SECONDS``",
    "garbage": "text that is no event, in place of ``session.created``",
    "binary": "binary frames in place of ``session.created``",
    "vllm": "a server of another protocol: an ``error`` that is a text, in place of ``session.created``",
    "deaf": "``session.created``, and no answer to any update",
    "setting": "every session.update is refused for one of its settings: ``setting:PARAM``",
    "busy": "``error`` session_limit_reached and close 1011: an earlier socket still counts",
}
SERVER_FAULTS = {
    "cap_s": "a session ends after so many seconds with ``session_expired`` and close 4000, as at 60 minutes",
    "idle_s": "a socket that hears nothing for so many seconds is closed with 1001",
    "delay_s": "each frame takes so long, in both directions: cancel and done cross on the line",
    "transcript_delay_s": "the words of a turn come so much later, after the reply that they caused",
    "transcript_pace_s": "between two words of a turn",
    "repeats": "speech_started, speech_stopped and committed come twice",
    "echoes_metadata": "False: metadata of a response is forgotten",
    "obeys": "False: it replies to turns by itself, whatever ``create_response`` says",
    "dialect": "``xai``: conversation.created behind session.created, text deltas under two names",
    "formats": "audio formats that a session may have (all three); another is refused with ``invalid_value``",
    "refusal": "how: ``typed`` (the default), ``bare`` (an error that names nothing), ``ignored`` (the rest of the update is taken), "
    "``close`` (hung up on)",
    "transcription": "what becomes of ``?intent=transcription``: ``known`` (the default), ``refused`` (HTTP 400: it wants a model), "
    "``ignored`` (a realtime session, and an update of its type is ``invalid_model`` and close 4000), ``claimed`` (a "
    "realtime session whatever its updates say)",
    "keys": "only these API keys are taken; others get HTTP 401",
}
CONNECTION_FAULTS = {
    "close": "``close(code)``: 1005 sends a close frame without a code, 1006 cuts the line",
    "freeze": "``freeze()``: nothing is said any more; pings are answered",
    "expire": "``expire()``: the provider's cap: ``session_expired``, then close 4000",
    "error": "``error(code)``, with or without event_id and code",
    "pong_delay_s": "pongs come so much later",
    "send": "``send(text or event)``: anything, as it is",
    "send_binary": "``send_binary(bytes)``",
}
REPLY_FAULTS = {
    "half_then_close": "half of the reply, then a close (``half_then_close:CODE``, 1006 cuts the line)",
    "then_close": "the whole reply, then a close in the same moment (``then_close:CODE``)",
    "half_then_silence": "half of the reply, then nothing; pings are still answered",
    "never": "the request is never answered",
    "busy": "the conversation has an active response, says the provider: an error in place of the reply",
    "content_after_done": "deltas and an output_item.done come after response.done",
    "no_item_done": "output_item.added without its done, then response.done",
    "duplicate_done": "output_item.done and response.done come twice",
    "late_created": "response.created comes after the first output",
    "late_transcript": "the transcript comes after all audio, in one piece",
    "done_only_transcript": "no transcript deltas, only the done event",
    "odd_chunks": "audio in chunks of strange sizes",
    "no_audio": "a spoken reply of text alone, and success",
    "empty": "success without any output",
    "unknown_item": "deltas for responses and items that do not exist, in between",
    "garbage": "frames that are no JSON, no object, no known event, in between",
    "huge_frame": "one frame of 40 MB",
    "failed": "response.done failed (``failed:CODE``)",
    "error_without_ids": "an error without event_id or code in place of the reply",
    "cancelled": "the provider cancels it by itself",
}

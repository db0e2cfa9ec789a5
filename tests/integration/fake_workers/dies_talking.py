"""A synthesizer worker that dies after the first chunk of "die", and makes nothing of "silent"."""

import os

from openline.adapters.tts_espeak_worker import CHUNK, DONE, MARK, READY, SPEAK, Request
from openline.adapters.worker_process import WorkerPort

if __name__ == "__main__":
    port = WorkerPort()
    port.send(READY, 0)
    while frame := port.receive():
        kind, utterance, payload = frame
        if kind != SPEAK:
            continue
        text = Request.unpack(payload).text
        if text != "silent":
            port.send(CHUNK, utterance, MARK.pack(0 if text == "die" else len(text)) + bytes(2_880))
        if text == "die":
            os._exit(1)
        port.send(DONE, utterance)

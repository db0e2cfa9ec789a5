"""A recognizer worker that is ready and then answers nothing."""

from openline.adapters.stt_pocketsphinx_worker import READY
from openline.adapters.worker_process import WorkerPort

if __name__ == "__main__":
    port = WorkerPort()
    port.send(READY, 0)
    while port.receive():
        pass

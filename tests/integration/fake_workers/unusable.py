"""A recognizer worker without its wheel."""

from openline.adapters.stt_pocketsphinx_worker import UNUSABLE
from openline.adapters.worker_process import WorkerPort

if __name__ == "__main__":
    WorkerPort().send(UNUSABLE, 0, b"no such wheel")

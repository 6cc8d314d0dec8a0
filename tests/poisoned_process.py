"""A process for `beam_inference.IsolatedEnhancer` whose decoder crashes on photos named poison; loads without TensorFlow."""

import os
import signal
from multiprocessing.connection import Connection

from jpegsr import beam_inference, files


class CrashingEnhancer(beam_inference.PhotoEnhancer):
    def enhance(self, content: bytes, name: str, target: str) -> beam_inference.Enhanced | beam_inference.Failure:
        if "poison" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().enhance(content, name, target)


def be_crashing_enhancer(connection: Connection, settings: files.Settings, kind: str) -> None:
    beam_inference.PhotoEnhancer = CrashingEnhancer  # type: ignore[misc]
    beam_inference.be_enhancer(connection, settings, kind)

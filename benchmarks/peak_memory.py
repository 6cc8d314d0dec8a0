"""The memory that a block of code takes at its peak."""

import threading

import psutil


class PeakMemory:
    """The largest resident size of this process within the block, in bytes, sampled every 5 ms."""

    def __enter__(self) -> "PeakMemory":
        self._process = psutil.Process()
        self.before = self.peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

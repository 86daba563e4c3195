"""What a run costs: minutes and memory of the processes that it starts, and how fast the machine is.

What comes of it is told by `costs.py`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType

import psutil

SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Spent:
    """What one run of a notebook took.

    Attributes:
        minutes: by the clock.
        processor_minutes: of all its processes together.
        idle_minutes: by the clock, while none of them had anything to do. What remains of the minutes, they have waited
            for a processor that was busy with something else.
        memory_gb: the most that they held at once, memory that two of them share counted twice.
    """

    minutes: float
    processor_minutes: float
    idle_minutes: float
    memory_gb: float


class Meter:
    """Measures the processes that start, and run, while it is open: ``with Meter() as meter: ...``, then `spent`."""

    def __enter__(self) -> Meter:
        self._me = psutil.Process()
        self._before = set(self._me.children(recursive=True))  # workers of something else
        self._processor = self._idle = self._memory = 0.0  # seconds, seconds, bytes
        self._over = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        minutes = (time.monotonic() - self._started) / 60
        self.spent = Spent(minutes, self._processor / 60, self._idle / 60, self._memory / 1e9)

    def _watch(self) -> None:
        before = self._started
        while not self._over.wait(SAMPLE_SECONDS):
            processor = memory = 0.0
            has_work = False
            for process in set(self._me.children(recursive=True)) - self._before:
                try:
                    processor += sum(process.cpu_times()[:4])  # its own, and that of its children that have ended
                    memory += process.memory_info().rss
                    has_work |= process.status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
                except psutil.Error:  # it has ended meanwhile
                    continue
            now = time.monotonic()
            # Threads may be at work while the first one of their process waits for them.
            if not has_work and processor - self._processor < 0.1 * (now - before):
                self._idle += now - before
            self._processor, self._memory = max(self._processor, processor), max(self._memory, memory)
            before = now


def yardstick() -> float:
    """Seconds of processor time for a fixed piece of work, like a lesson's: a convolution, forward and backward.

    The best of five, on one thread; so it's the machine's speed, and not what else it's busy with.
    """
    import torch  # only for those who measure

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        layer, x = torch.nn.Conv2d(32, 32, 3, padding=1), torch.ones(8, 32, 64, 64)
        taken = []
        for _ in range(5):
            started = time.process_time()
            for _ in range(5):
                layer(x).sum().backward()
            taken.append(time.process_time() - started)
        return min(taken)
    finally:
        torch.set_num_threads(threads)

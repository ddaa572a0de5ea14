"""The ways in which a run is asked to end early, all of them between two steps."""

import math
import signal
import threading
import time
from typing import Any, Literal

from openltx.training.config import RunConfig

StopReason = Literal["time", "stop file", "signal"]


class StopRequest:
    """Ctrl-C, SIGTERM, a file STOP in the run's folder, or the end of its time: each lets the present step finish."""

    def __init__(self, config: RunConfig) -> None:
        self.file = config.out / "STOP"
        self.deadline = math.inf if config.max_seconds is None else time.monotonic() + config.max_seconds
        self.signalled = False
        self.former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.former[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def reason(self) -> StopReason | None:
        """Why the run should stop now, or None."""
        if self.signalled:
            return "signal"
        if self.file.exists():
            return "stop file"
        return "time" if time.monotonic() >= self.deadline else None

    def _remember(self, number: int, _: object) -> None:
        if self.signalled and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signalled = True

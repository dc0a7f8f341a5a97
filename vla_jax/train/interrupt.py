"""SIGTERM and SIGINT: finish the step at hand, save, and leave with exit code 0."""

import os
import signal
import threading

import jax

from vla_jax.train.distributed import agree

# Processes agree to stop every so many steps, as they must all save the same one.
_AGREE_EVERY = 10
_NOTICE = b"\nSaving after this step; send the signal again to stop at once.\n"


class Interrupt:
    """Turns the first signal into a flag; used as a context manager.

    Before `finish_step` is called nothing is worth saving, and a signal raises
    `KeyboardInterrupt` at once. A second signal always acts as it would without us.
    Outside of the main thread, where Python allows no handlers, nothing is changed.
    """

    def __init__(self):
        self._wanted = False
        self._finish_step = False
        self._previous = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        self._restore()

    def finish_step(self) -> None:
        """From now on a signal lets the step at hand finish."""
        self._finish_step = True

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`; the same answer in every process."""
        if jax.process_count() == 1:
            return self._wanted
        if step % _AGREE_EVERY:
            return False
        return agree(self._wanted)

    def _handle(self, number, frame) -> None:
        del number, frame
        self._restore()
        if not self._finish_step:
            raise KeyboardInterrupt
        self._wanted = True
        os.write(2, _NOTICE)  # print may be in the middle of a line of its own

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

"""Requests of many clients in one call of the policy.

Nobody is waited for: whatever has come in while the last call ran makes up the next
one, so a lone client never waits for others, and many share their calls.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from vla_jax.serving.policy import Row

_LOG = logging.getLogger(__name__)


class Answer(NamedTuple):
    """A chunk f32 [c a], and how it came about: seconds, and rows of the call."""

    chunk: np.ndarray
    waited_s: float
    infer_s: float
    rows: int


class _Request(NamedTuple):
    row: Row
    since: float
    future: asyncio.Future


class Batcher:
    """Runs the policy in a thread of its own, so that the event loop stays free."""

    def __init__(self, predict: Callable[[Sequence[Row]], np.ndarray], max_rows: int):
        """Takes `Policy.predict` and the number of rows that one call may have."""
        self._predict, self._max_rows = predict, max_rows
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")

    async def predict(self, row: Row) -> Answer:
        """The chunk of one row, predicted together with those of other clients."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Request(row, time.perf_counter(), future))
        return await future

    async def run(self) -> None:
        """Serves requests until it is cancelled."""
        try:
            while True:
                batch = [await self._waiting.get()]
                while len(batch) < self._max_rows and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                batch = [r for r in batch if not r.future.done()]  # clients may vanish
                if batch:
                    await self._serve(batch)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, batch: list[_Request]) -> None:
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            rows = [request.row for request in batch]
            chunks = await loop.run_in_executor(self._thread, self._predict, rows)
        except Exception as error:
            if len(batch) > 1:
                # One bad request must not spoil the answers of the others.
                _LOG.warning("A call of %d rows failed; one by one now", len(batch))
                for request in batch:
                    await self._serve([request])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        infer_s = time.perf_counter() - start
        for request, chunk in zip(batch, chunks, strict=True):
            if not request.future.done():
                waited = start - request.since
                request.future.set_result(Answer(chunk, waited, infer_s, len(batch)))

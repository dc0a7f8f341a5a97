"""One arm of a comparison, in a process of its own: `python -m vla_jax.benchmark.arms`.

The first line that comes is JSON, `{"arm", "config", "num_batches", "shuffle"}`; every
further line asks for one turn and is answered by a line of JSON. Everything that
libraries print goes to stderr. Between turns an arm rests: it answers when its threads
have filled what they fill ahead of time, so that arms do not disturb one another.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

import numpy as np
import simplejpeg

from vla_jax.benchmark.report import resident_mb
from vla_jax.data.rlds import open_rlds
from vla_jax.data.source import Source, open_source
from vla_jax.data.standardize import resolve_spec

ARMS = ("raw", "loader", "tfdata", "dlimp")

_WARM_UP = 8  # batches that are not timed
_SEED = 0
_REST = 0.1  # seconds in which resting threads use less than a tenth of one core
_LONGEST_REST = 10.0

Turn = Callable[[], dict[str, float]]


def main() -> None:
    """Answers what comes from stdin until it ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply
    job = json.loads(sys.stdin.readline())
    try:
        turn = open_arm(job["arm"], job["config"], job["num_batches"], job["shuffle"])
        _reply(replies, {})
        for _ in sys.stdin:
            result = turn()
            _wait_for_rest()
            _reply(replies, result)
    except (ValueError, ImportError) as error:
        _reply(replies, {"error": str(error)})


def open_arm(
    arm: str, config: Mapping[str, Any], num_batches: int, shuffle: int
) -> Turn:
    """Prepares an arm.

    Args:
        arm: one of `ARMS`. "raw" decodes, in memory, the images that the batches of
            "loader" hold, and does nothing else.
        config: of `open_source`; the pipelines of TensorFlow take its first data set.
        num_batches: batches of a turn.
        shuffle: steps that the pipelines of TensorFlow shuffle together.

    Returns:
        a function that takes one turn: elapsed `seconds` and `work`, seconds of
        processor time, for so many `images`, and resident memory `rss_mb`.

    Raises:
        ValueError: images that the loader would have to resize, or that are no JPEGs.
    """
    if arm == "raw":
        return _raw(open_source(config), num_batches)
    if arm == "loader":
        source = open_source(config)
        return lambda: _loader_turn(source, num_batches)
    from vla_jax.benchmark import tfdata

    dataset = config["datasets"][0]
    spec = resolve_spec(dataset["spec"])
    pipeline = tfdata.Pipeline(
        path=open_rlds(dataset["path"]).path,
        cameras={camera: spec.cameras[camera] for camera in config["cameras"]},
        window=config["window"],
        chunk=config["chunk"],
        batch_size=config["batch_size"],
        num_threads=max(config["num_threads"], 1),
        prefetch=config["prefetch"],
        shuffle=shuffle,
    )
    make = {"tfdata": tfdata.tfdata_batches, "dlimp": tfdata.dlimp_batches}[arm]
    batches = make(pipeline)
    return lambda: _timed(batches, num_batches, lambda batch: batch["image"])


def _loader_turn(source: Source, num_batches: int) -> dict[str, float]:
    # Grain and JAX are part of this arm's memory and of no other's.
    from vla_jax.data.loader import train_batches

    with train_batches(source, seed=_SEED) as batches:
        return _timed(batches, num_batches, lambda b: b["observation"]["image"])


def _timed(
    batches: Iterator[dict], num_batches: int, images: Callable[[dict], Mapping]
) -> dict[str, float]:
    for _ in range(_WARM_UP):
        next(batches)
    count, start = 0, _clocks()
    for _ in range(num_batches):
        batch = next(batches)
        count += sum(np.prod(i.shape[:2]) for i in images(batch).values())
    return _result(start, count)


def _raw(source: Source, num_batches: int) -> Turn:
    """Decodes encoded images, shared out among threads, into memory of a batch each."""
    encoded = encoded_images(source, num_batches)
    height, width = simplejpeg.decode_jpeg_header(encoded[0])[:2]
    if (height, width) != source.image_size:
        raise ValueError(
            f"The images are {height} x {width} pixels, but batches are to be "
            f"{source.image_size}: raw decoding does not resize, so measure both at "
            "the size that the images have."
        )
    threads = max(source.num_threads, 1)
    images = source.batch_size * source.window * len(source.cameras)
    shape = (images, *source.image_size, 3)
    pool = ThreadPoolExecutor(threads)
    shares = [encoded[number::threads] for number in range(threads)]

    def decode(share: Sequence[bytes]) -> None:
        batch = np.empty(shape, np.uint8)
        for number, data in enumerate(share):
            simplejpeg.decode_jpeg(data, buffer=batch[number % images])

    def turn() -> dict[str, float]:
        list(pool.map(len, shares))  # starts the threads
        start = _clocks()
        list(pool.map(decode, shares))
        return _result(start, len(encoded))

    return turn


def encoded_images(source: Source, num_batches: int) -> list[bytes]:
    """The images that the timed batches of the loader hold, as they lie on disk."""
    from vla_jax.data.loader import train_batches

    encoded = []
    undecoded = dataclasses.replace(source, num_threads=0, prefetch=0)
    with train_batches(undecoded, seed=_SEED, start_step=_WARM_UP) as batches:
        for _ in range(num_batches):
            batch = next(batches)
            for camera in source.cameras:
                for number, episode, step in zip(
                    batch["dataset"], batch["episode"], batch["step"], strict=True
                ):
                    index = source.indexes[number]
                    first = index.first_step[episode]
                    for past in range(max(step - source.window + 1, 0), step + 1):
                        data = bytes(index.read_image(camera, int(first + past)))
                        encoded.append(data)
    return encoded


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _result(start: tuple[float, float], images: int) -> dict[str, float]:
    seconds, work = (end - begin for begin, end in zip(start, _clocks(), strict=True))
    return dict(seconds=seconds, work=work, images=int(images), rss_mb=resident_mb())


def _wait_for_rest() -> None:
    end = time.monotonic() + _LONGEST_REST
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(_REST)
        if time.process_time() - before < _REST / 10:
            return


def _reply(file: TextIO, content: Mapping[str, Any]) -> None:
    print(json.dumps(content), file=file, flush=True)


if __name__ == "__main__":
    main()

"""How much of the raw JPEG decode rate the loader reaches, and whether memory is flat.

Both arms decode the same images with the same number of threads into memory of the same
size: pixels of a batch have to lie somewhere all at once, and writing them to memory
outside the processor's caches is a part of decoding them. The raw arm has the encoded
bytes in memory and fills the same batch over and over, one per thread; the loader draws
samples, reads from disk, gathers, masks, normalizes and fills new batches.
The arms take turns, so that what else the machine does hits both. On a busy machine the
ratio of processor times says more than the ratio of rates, because a loader with more
threads is given more of the processor than the raw arm.
"""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import simplejpeg
from tqdm import tqdm

from vla_jax.benchmark.report import Row, resident_mb
from vla_jax.data.loader import train_batches
from vla_jax.data.source import Source

_WARM_UP = 8  # batches that are not timed


def measure_throughput(
    source: Source, *, num_batches: int, repeats: int, seed: int = 0
) -> list[Row]:
    """Times loader and raw decoding in turns and compares their medians.

    Args:
      source: what to load; its images must already have the size of the batch.
      num_batches: batches in one measurement.
      repeats: measurements of each arm.
      seed: of the order of samples.

    Raises:
      ValueError: images that the loader would have to resize, or that are no JPEGs.
    """
    encoded = _encoded_images(source, num_batches, seed)
    height, width = simplejpeg.decode_jpeg_header(encoded[0])[:2]
    if (height, width) != source.image_size:
        raise ValueError(
            f"The images are {height} x {width} pixels, but batches are to be "
            f"{source.image_size}: raw decoding does not resize, so measure both at "
            "the size that the images have."
        )
    num_images = len(encoded)
    raw_times, loader_times = [], []  # (elapsed, processor) seconds
    for repeat in tqdm(range(repeats + 1), desc="loader and raw decoding in turns"):
        raw_time = _time_raw(encoded, source)
        loader_time = _time_loader(source, num_batches, seed)
        if repeat:  # the first round fills the page cache
            raw_times.append(raw_time)
            loader_times.append(loader_time)
    raw_seconds, raw_work = np.median(raw_times, axis=0).tolist()
    loader_seconds, loader_work = np.median(loader_times, axis=0).tolist()
    pairs = zip(raw_times, loader_times, strict=True)
    ratios = [raw[0] / loader[0] for raw, loader in pairs]
    loader, raw = num_images / loader_seconds, num_images / raw_seconds
    size = sum(map(len, encoded)) / num_images
    return [
        Row("loader/decode_ratio", loader / raw, "1"),
        Row("loader/decode_ratio_lowest", min(ratios), "1"),
        Row("loader/decode_ratio_highest", max(ratios), "1"),
        Row("loader/processor_ratio", raw_work / loader_work, "1"),
        Row("loader/frames_per_s", loader, "images/s"),
        Row("loader/raw_frames_per_s", raw, "images/s"),
        Row("loader/batches_per_s", loader * num_batches / num_images, "batches/s"),
        Row("loader/threads", max(source.num_threads, 1), "threads"),
        Row("loader/batch_size", source.batch_size, "samples"),
        Row("loader/bytes_per_image", size, "B"),
    ]


def measure_memory(source: Source, *, num_batches: int, seed: int = 0) -> list[Row]:
    """Loads many batches and compares resident memory late with resident memory early.

    Both are medians over a tenth of the batches: the second tenth and the last.
    """
    samples = []
    with train_batches(source, seed=seed) as batches:
        for step in tqdm(range(num_batches), desc="memory"):
            next(batches)
            if step % max(num_batches // 1000, 1) == 0:
                samples.append(resident_mb())
    tenth = max(len(samples) // 10, 1)
    early = statistics.median(samples[tenth : 2 * tenth] or samples)
    late = statistics.median(samples[-tenth:])
    return [
        Row("loader/rss_growth_mb", late - early, "MB"),
        Row("loader/rss_mb", late, "MB"),
        Row("loader/rss_batches", num_batches, "batches"),
    ]


def with_batch_size(source: Source, batch_size: int) -> Source:
    """The same source with other batches."""
    return dataclasses.replace(source, batch_size=batch_size)


def _time_loader(source: Source, num_batches: int, seed: int) -> tuple[float, float]:
    """Elapsed and processor seconds for `num_batches` batches of a running loader."""
    with train_batches(source, seed=seed) as batches:
        for _ in range(_WARM_UP):
            next(batches)
        start = _clocks()
        for _ in range(num_batches):
            next(batches)
        return _since(start)


def _time_raw(encoded: Sequence[bytes], source: Source) -> tuple[float, float]:
    """Elapsed and processor seconds to decode all images, shared out among threads."""
    threads = max(source.num_threads, 1)
    images = source.batch_size * source.window * len(source.cameras)

    def decode(share: Sequence[bytes]) -> None:
        batch = np.empty((images, *source.image_size, 3), np.uint8)
        for number, data in enumerate(share):
            simplejpeg.decode_jpeg(data, buffer=batch[number % images])

    shares = [encoded[number::threads] for number in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(len, shares))  # starts the threads
        start = _clocks()
        list(pool.map(decode, shares))
        return _since(start)


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    elapsed, processor = _clocks()
    return elapsed - start[0], processor - start[1]


def _encoded_images(source: Source, num_batches: int, seed: int) -> list[bytes]:
    """The images that the timed batches hold, as they lie on disk."""
    encoded = []
    undecoded = dataclasses.replace(source, num_threads=0, prefetch=0)
    with train_batches(undecoded, seed=seed, start_step=_WARM_UP) as batches:
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

"""The loader against raw JPEG decoding and against TensorFlow, and its memory.

Raw decoding and the loader decode the same images with the same number of threads into
memory of the same size: pixels of a batch have to lie somewhere all at once, and
writing them to memory outside the processor's caches is a part of decoding them. The
raw arm has the encoded bytes in memory and fills the same batch over and over, one per
thread; the loader draws samples, reads from disk, gathers, masks, normalizes and fills
new batches. What the pipelines of TensorFlow do stands in `vla_jax.benchmark.tfdata`.

On a busy machine the ratio of processor times says more than the ratio of rates,
because an arm with more threads is given more of the processor.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from vla_jax.benchmark.report import Row, resident_mb
from vla_jax.benchmark.turns import memory, rate, ratio, take_turns
from vla_jax.data.loader import train_batches
from vla_jax.data.source import Source, open_source


def measure_throughput(
    config: Mapping[str, Any],
    *,
    num_batches: int,
    turns: int,
    rivals: Sequence[str] = (),
    shuffle: int = 4096,
) -> list[Row]:
    """Times raw decoding, the loader and its rivals in turns.

    Args:
      config: of `open_source`, one data set; its images must already have the size of
        the batch.
      num_batches: batches in one turn.
      turns: of each arm.
      rivals: of "tfdata" and "dlimp", those to compare with.
      shuffle: steps that the rivals shuffle together.

    Raises:
      ValueError: images that the loader would have to resize, or that are no JPEGs.
    """
    source = open_source(config)
    results = take_turns(
        ("raw", "loader", *rivals),
        config,
        num_batches=num_batches,
        turns=turns,
        shuffle=shuffle,
    )
    raw, loader = results["raw"], results["loader"]
    rows = []
    for rival in rivals:
        theirs = results[rival]
        rows += [
            ratio(f"loader/vs_{rival}", theirs, loader, "seconds"),
            ratio(f"loader/processor_vs_{rival}", theirs, loader, "work"),
            ratio(f"loader/rss_vs_{rival}", loader, theirs, "rss_mb"),
            rate(f"{rival}/frames_per_s", theirs),
            memory(f"{rival}/rss_mb", theirs),
            Row(f"{rival}/shuffle", shuffle, "steps"),
        ]
    return [
        *rows,
        ratio("loader/decode_ratio", raw, loader, "seconds"),
        ratio("loader/processor_ratio", raw, loader, "work"),
        rate("loader/frames_per_s", loader),
        rate("loader/raw_frames_per_s", raw),
        memory("loader/rss_mb", loader),
        Row("loader/threads", max(source.num_threads, 1), "threads"),
        Row("loader/batch_size", source.batch_size, "samples"),
        Row("loader/bytes_per_image", bytes_per_image(source), "B"),
    ]


def measure_growth(source: Source, *, num_samples: int, seed: int = 0) -> list[Row]:
    """Loads many batches and compares resident memory late with resident memory early.

    Both are medians over a tenth of the batches: the second tenth and the last.
    """
    samples, num_batches = [], -(-num_samples // source.batch_size)
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
        Row("loader/rss_samples", num_batches * source.batch_size, "samples"),
    ]


def bytes_per_image(source: Source) -> float:
    """Mean size of an encoded image of the first data set."""
    sizes = [source.indexes[0].image_spans[camera][:, 2] for camera in source.cameras]
    return float(sum(s.sum() for s in sizes) / sum((s > 0).sum() for s in sizes))

"""Frames of a video by their time."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np


def read_frames(
    path: Path, times: np.ndarray, tolerance: float, pixels: str = "rgb24"
) -> Iterator[np.ndarray]:
    """The frames of a video at some times.

    Args:
        path: the video.
        times: f64 `[T]` in seconds, ascending.
        tolerance: seconds that a frame may be off.
        pixels: format to give them in, as FFmpeg calls it.

    Yields:
        uint8 `[h, w, 3]` for "rgb24", uint16 `[h, w]` for "gray12le", one per time.

    Raises:
        ValueError: when the video cannot be read, or has no frame at one of the times.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            begin = max(float(times[0]) - tolerance, 0.0)
            container.seek(int(begin / stream.time_base), stream=stream)
            position = 0
            for frame in container.decode(stream):
                while position < len(times) and (
                    abs(frame.time - times[position]) <= tolerance
                ):
                    yield frame.to_ndarray(format=pixels)
                    position += 1
                if position == len(times):
                    return
                if frame.time > times[position] + tolerance:
                    break
    except (av.FFmpegError, IndexError, OSError) as error:
        raise ValueError(f"the video {path} cannot be read: {error}") from error
    raise ValueError(
        f"the video {path} has no frame within {tolerance:.4f} s of "
        f"{times[position]:.4f} s, where step {position} is to be"
    )

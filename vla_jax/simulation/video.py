"""Videos of episodes: H.264 in MP4, which every browser plays, with a caption."""

import os
import textwrap
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float):
    """Writes frames as a video; the file appears only when it is complete.

    Args:
        path: ends in ".mp4"; missing folders are made.
        frames: uint8 [h, w, 3], all of one size; an odd last row or column is cut off,
            since the encoder halves the color resolution.
        fps: frames per second.

    Raises:
        ValueError: no frames, or frames that differ in size or are no uint8 images.
    """
    import av

    path = Path(path)
    if path.suffix != ".mp4":
        raise ValueError(f"A video is written as .mp4; got '{path.name}'.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial.mp4")
    shape = None
    try:
        with av.open(str(temporary), "w") as container:
            stream = container.add_stream("libx264", Fraction(fps).limit_denominator())
            stream.pix_fmt = "yuv420p"
            # One thread: the same file on every machine, and cores are shared.
            stream.options = {"crf": "20", "preset": "veryfast", "threads": "1"}
            for frame in frames:
                frame = np.asarray(frame)
                if shape is None:
                    shape = frame.shape
                    stream.height, stream.width = shape[0] // 2 * 2, shape[1] // 2 * 2
                if frame.dtype != np.uint8 or frame.shape != shape or len(shape) != 3:
                    raise ValueError(
                        f"A frame of {frame.dtype} {frame.shape} came; expected uint8 "
                        f"{shape} with 3 channels."
                    )
                frame = np.ascontiguousarray(frame[: stream.height, : stream.width])
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(stream.encode(picture))
            if shape is None:
                raise ValueError(f"No frames for {path}.")
            container.mux(stream.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def add_caption(
    frame: np.ndarray,
    text: str,
    success: bool | None = None,
    *,
    size: int | None = None,
) -> np.ndarray:
    """Puts a strip with text below a frame, uint8 [h, w, 3] -> [h + strip, w, 3].

    Args:
        frame: the picture; not changed.
        text: broken into at most two lines.
        success: True or False colors the strip green or red.
        size: of the letters in pixels; a twentieth of the width when None.
    """
    height, width = frame.shape[:2]
    size = max(9, width // 20) if size is None else size
    strip = int(2.8 * size)
    color = {None: (32, 32, 32), True: (24, 112, 48), False: (144, 32, 32)}[success]
    picture = Image.new("RGB", (width, height + strip), color)
    picture.paste(Image.fromarray(frame), (0, 0))
    lines = textwrap.wrap(text, max(8, int(1.9 * width / size)))[:2]
    ImageDraw.Draw(picture).multiline_text(
        (size // 2, height + size // 4),
        "\n".join(lines),
        font=ImageFont.load_default(size),
        fill=(255, 255, 255),
        spacing=size // 5,
    )
    return np.asarray(picture)

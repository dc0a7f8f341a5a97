"""Checks of images and depth: missing, damaged, blank, of another size; projections."""

from collections.abc import Iterator

import numpy as np

from vla_jax.data.checks.finding import Finding, Sample, some
from vla_jax.data.checks.projection import can_project, project
from vla_jax.data.image import decode, decode_depth
from vla_jax.data.index import Index

_BLOCK = 65536  # steps in memory at a time
_NUM_IMAGES = 64  # decoded per camera
_FAR = 20.0  # metres; few robots look that far
_BLANK = 1.0  # standard deviation of the pixels, in gray levels


def check_images(sample: Sample) -> Iterator[Finding]:
    """All checks of this file."""
    steps, seeing = _spread(sample), []
    for camera in sample.index.cameras:
        missing = _check_missing(sample, camera)
        yield missing
        if missing.level != "error":
            seeing.append(camera)
            yield _check_pixels(sample, camera, steps)
    for camera in sample.index.depth_spans:
        yield _check_depth(sample, camera, steps)
    yield from _check_projections(sample.index, seeing, steps)


def _spread(sample: Sample) -> np.ndarray:
    """Some steps, spread evenly over those of the sampled episodes."""
    lengths = sample.index.num_episode_steps[sample.episodes].astype(np.int64)
    ends = np.cumsum(lengths)
    chosen = np.unique(np.linspace(0, ends[-1] - 1, _NUM_IMAGES).astype(np.int64))
    row = np.searchsorted(ends, chosen, side="right")
    first = sample.index.first_step[sample.episodes[row]]
    return first + chosen - (ends - lengths)[row]


def _check_missing(sample: Sample, camera: str) -> Finding:
    index = sample.index
    spans = index.image_spans[camera]
    missing, episodes = 0, []
    for start in range(0, len(spans), _BLOCK):
        absent = spans[start : start + _BLOCK, 2] == 0
        missing += int(absent.sum())
        if len(episodes) < 5 and absent.any():
            numbers = index.episode[start : start + _BLOCK][absent]
            episodes += np.unique(numbers)[:5].tolist()
    if not missing:
        return Finding("ok", "images", f"Camera {camera!r} has an image in every step.")
    every = missing == index.num_steps
    return Finding(
        "error" if every else "warning",
        "images",
        f"Camera {camera!r} has no image in {missing:,} of {index.num_steps:,} steps.",
        "Take another feature for it in the spec."
        if every
        else "They are masked in training; look whether a camera has failed.",
        some(episodes),
    )


def _check_pixels(sample: Sample, camera: str, steps: np.ndarray) -> Finding:
    """Decodes images as training will."""
    index = sample.index
    expected = tuple(index.image_features[camera]["shape"][:2])
    sizes: dict[tuple[int, ...], int] = {}
    blank = []
    for step in sample.track(steps.tolist(), f"images of {camera}"):
        data = index.read_image(camera, step)
        if not data:
            continue
        where = f"The {camera!r} image of step {step}"
        episode = int(index.episode[step])
        try:
            pixels = decode(data)
        except ValueError as error:
            return Finding(
                "error",
                "pixels",
                f"{where} cannot be decoded: {error}.",
                "Store it as JPEG or PNG, or leave its episode out.",
            )
        size = pixels.shape[:2]
        stated = zip(expected, size, strict=True)
        if any(want not in (-1, have) for want, have in stated):
            return Finding(
                "error",
                "pixels",
                f"{where} has the size {size}; the data set states {expected}.",
                "Write the data set again with the right shape.",
                (episode,),
            )
        sizes[size] = sizes.get(size, 0) + 1
        if pixels.std(axis=(0, 1)).max() < _BLANK:
            blank.append(episode)
    count = sum(sizes.values())
    if len(blank) > max(0.05 * count, 1):
        return Finding(
            "warning",
            "pixels",
            f"{len(blank)} of {count} sampled images of camera {camera!r} are of a "
            "single color.",
            "Check the camera.",
            some(dict.fromkeys(blank)),
        )
    if len(sizes) > 1:
        return Finding(
            "warning",
            "pixels",
            f"Images of camera {camera!r} differ in size: {sorted(sizes)}.",
            "They are resized to one size in training; check that they show the same.",
        )
    (size,) = sizes or [expected]
    return Finding(
        "ok",
        "pixels",
        f"{count} sampled images of camera {camera!r} can be decoded, all of "
        f"{size[0]}x{size[1]} pixels.",
    )


def _check_depth(sample: Sample, camera: str, steps: np.ndarray) -> Finding:
    """Decodes depth images as training will."""
    index = sample.index
    feature, scale = index.depth_features[camera], index.spec.depth_scale.get(camera)
    depth, middles = np.zeros((32, 32), np.float32), []
    for step in sample.track(steps.tolist(), f"depth of {camera}"):
        data = index.read_depth(camera, step)
        try:
            if data:
                decode_depth(data, feature, depth, scale)
                middles.append(float(np.median(depth)))
        except ValueError as error:
            return Finding(
                "error",
                "depth",
                f"The {camera!r} depth image of step {step} cannot be decoded: "
                f"{error}.",
                "Store it as PNG of one channel, or leave its episode out.",
            )
    middle = float(np.median(middles)) if middles else 0.0
    said = f"Camera {camera!r} sees {middle:.3g} m far in the median."
    if not 0 < middle < _FAR:
        remedy = "Check `depth_scale` in the spec: it gives metres per unit."
        return Finding("warning", "depth", said, remedy)
    return Finding("ok", "depth", said)


def _check_projections(
    index: Index, seeing: list[str], steps: np.ndarray
) -> Iterator[Finding]:
    """Whether cameras that are calibrated see the end effector where it can be."""
    cameras = [camera for camera in seeing if can_project(index, camera)]
    if not cameras:
        yield Finding(
            "skipped",
            "projection",
            "There is no camera model (poses, intrinsics and extrinsics of a camera), "
            "so the end effector is not drawn into the pictures.",
            "Return `pose` and `camera` from the standardize function.",
        )
    for camera in cameras:
        pixels, in_front = project(index, camera, steps)
        height, width = index.image_size(camera)
        inside = in_front & (pixels >= 0).all(1) & (pixels < (width, height)).all(1)
        share = float(inside.mean())
        said = (
            f"The end effector lies within the picture of camera {camera!r} in "
            f"{share:.0%} of {len(steps)} sampled steps."
        )
        if share < 0.5:
            yield Finding(
                "warning",
                "projection",
                said,
                "Extrinsics take points from the robot's base to the camera, with z "
                "forward and y down; intrinsics count pixels of the stored image.",
                some(dict.fromkeys(index.episode[steps[~inside]].tolist())),
            )
        else:
            yield Finding("ok", "projection", said)

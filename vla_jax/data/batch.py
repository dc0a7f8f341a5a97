"""Samples to one numpy batch: window, chunk, masks, normalization, pixels, token ids.

Everything but the pixels is index arithmetic on memory-mapped arrays, done for all
samples of a data set at once. Images are decoded by `run`, which may be the `map` of a
thread pool, straight into the memory of the batch.
"""

from collections.abc import Callable

import numpy as np

from vla_jax.data.frames import Frames, decode_frames, find_frames
from vla_jax.data.labels import Samples
from vla_jax.data.resize import scale_intrinsics
from vla_jax.data.sampler import hash_numbers
from vla_jax.data.source import Source
from vla_jax.data.statistics import action_mask as normalized_dimensions
from vla_jax.data.statistics import normalize
from vla_jax.data.text import choose_phrasings, keep_instructions
from vla_jax.data.windows import merge_actions, window_and_chunk

_DROPOUT = 0x64726F70  # keeps these draws apart from others of the same seed


def make_batch(
    source: Source,
    dataset: np.ndarray,
    sample: np.ndarray,
    *,
    split: str = "train",
    seed: int = 0,
    run: Callable = map,
    empty: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> dict:
    """Loads samples.

    Data sets with fewer proprio or action dimensions than the widest are padded with
    zeros, masked in `action_mask`. A camera that a data set or a step does not have is
    black and masked in `image_mask`. Frames before the first of an episode repeat it
    and actions after the last continue it: absolute dimensions and the gripper stay,
    relative ones are zero. Depth and camera matrices are there when `source` asks for
    them, zeros where a data set or a step has none.

    Args:
      source: what to load from.
      dataset: int32 [b], position in `source.indexes`.
      sample: int64 [b], number of the sample within the split of its data set.
      split: "train" or "validation".
      seed: chooses among alternative phrasings of an instruction, which of them are
        left out in training (`data.text.dropout`), and in labels.
      run: `map`, or a parallel function like it.
      empty: where the uint8 arrays for images come from; new memory if left out.

    Returns:
      nested dict with the names of `vla_jax.types.Batch`, and `dataset`, `episode` and
      `step`, int32 [b], which tell where each row comes from.

    Raises:
      ValueError: an image that cannot be decoded, naming where it is.
    """
    empty = empty or _new_memory
    batch = _allocate(source, dataset, empty)
    groups, frames = [], []
    for number in np.unique(dataset):
        rows = np.flatnonzero(dataset == number)
        place = source.episodes(split)[number].locate(sample[rows])
        _fill_numbers(source, number, place, rows, batch)
        dropout = source.text_dropout if split == "train" else 0.0
        _fill_instructions(source, number, place, rows, seed, dropout, batch)
        if source.camera_matrices:
            _fill_cameras(source, number, place, rows, batch["observation"])
        frames += _find_frames(source, number, place, rows, batch["observation"])
        groups.append((number, rows, place))
    samples = Samples(
        source.indexes,
        groups,
        len(dataset),
        source.chunk,
        source.image_size,
        seed,
        empty,
        source.skips,
    )
    for name, label in source.labels.items():
        batch["labels"][name], some = label(samples)
        frames += some
    shares = range(1 if run is map else max(source.num_threads, 1))
    tasks = [[some.share(i, len(shares)) for some in frames] for i in shares]
    for _ in run(decode_frames, tasks):
        pass
    _repeat_first_frame(batch["observation"])
    return batch


def _allocate(source: Source, dataset: np.ndarray, empty: Callable) -> dict:
    """A batch of zeros, except for images, of which every pixel is written later."""
    b, t, c = len(dataset), source.window, source.chunk
    shape = (b, t, *source.image_size, 3)
    batch = {
        "observation": {
            "image": {camera: empty(shape) for camera in source.cameras},
            "image_mask": {camera: np.zeros((b, t), bool) for camera in source.cameras},
            "proprio": np.zeros((b, t, source.proprio_dim), np.float32),
            "frame_mask": np.zeros((b, t), bool),
        },
        "task": {
            "tokens": np.zeros((b, source.text_length), np.int32),
            "token_mask": np.zeros((b, source.text_length), bool),
        },
        "action": np.zeros((b, c, source.action_dim), np.float32),
        "action_mask": np.zeros((b, c, source.action_dim), bool),
        "labels": {},
        "dataset": np.asarray(dataset, np.int32),
        "episode": np.zeros(b, np.int32),
        "step": np.zeros(b, np.int32),
    }
    if source.depth:
        batch["observation"]["depth"] = {
            camera: np.zeros(shape[:-1], np.float32) for camera in source.depth
        }
    if source.camera_matrices:
        batch["observation"]["camera"] = {
            camera: {
                "intrinsics": np.zeros((b, t, 3, 3), np.float32),
                "extrinsics": np.zeros((b, t, 4, 4), np.float32),
            }
            for camera in dict.fromkeys(source.cameras + source.depth)
        }
    return batch


def _new_memory(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, np.uint8)


def _fill_numbers(source, number, place, rows, batch):
    """Proprio and actions, normalized, with their masks."""
    index, statistics = source.indexes[number], source.statistics[number]
    past, frame_mask, future, real = window_and_chunk(
        place.step,
        place.length,
        window=source.window,
        chunk=source.chunk,
        skip=source.skips[number],
    )
    first = place.first_step[:, None]
    proprio = index.proprio.take(first + past, axis=0)  # [b t p]
    action = index.action.take(first + future, axis=0)  # [b c*skip a]
    relative = np.array([kind == "relative" for kind in index.spec.action])
    np.copyto(action, 0.0, where=~real[:, :, None] & relative)
    action, real = merge_actions(action, real, relative, source.skips[number])
    proprio = normalize(proprio, statistics["proprio"], source.normalization["proprio"])
    action = normalize(
        action,
        statistics["action"],
        source.normalization["action"],
        mask=normalized_dimensions(index.spec.action),
    )
    observation = batch["observation"]
    observation["frame_mask"][rows] = frame_mask
    observation["proprio"][rows, :, : proprio.shape[-1]] = proprio
    batch["action"][rows, :, : action.shape[-1]] = action
    batch["action_mask"][rows, :, : action.shape[-1]] = real[:, :, None]
    batch["episode"][rows] = place.episode
    batch["step"][rows] = place.step


def _fill_instructions(source, number, place, rows, seed, dropout, batch):
    """Token ids of one of the phrasings that a step has; none where it has none."""
    language = source.indexes[number].language
    phrasings = language[place.first_step + place.step]
    num_phrasings = np.sum(phrasings >= 0, axis=1)  # the real ones come first
    if not num_phrasings.any():
        return
    choice = 0
    if num_phrasings.max() > 1:
        chance = hash_numbers(seed, number, place.first_step + place.step)
        choice = choose_phrasings(chance, num_phrasings)
    chosen = phrasings[np.arange(len(rows)), choice]
    has = chosen >= 0
    if dropout > 0:
        chance = hash_numbers(seed, _DROPOUT, number, place.first_step + place.step)
        has &= keep_instructions(chance, dropout)
    tokens, token_mask = source.instructions[number]
    batch["task"]["tokens"][rows[has]] = tokens[chosen[has]]
    batch["task"]["token_mask"][rows[has]] = token_mask[chosen[has]]


def _fill_cameras(source, number, place, rows, observation):
    """Camera matrices of the window, intrinsics in pixels of the resized images."""
    index = source.indexes[number]
    past = _past(source, number, place)[0]
    steps = place.first_step[:, None] + past
    for camera, out in observation["camera"].items():
        for key, matrices in index.camera_matrices.get(camera, {}).items():
            values = matrices[steps]
            if key == "intrinsics":
                size = index.image_size(camera)
                values = scale_intrinsics(values, size, source.image_size)
            out[key][rows] = values


def _find_frames(source, number, place, rows, observation) -> list[Frames]:
    """Lists the images and depth images of one data set; fills `image_mask`."""
    index, found = source.indexes[number], []
    past, frame_mask = _past(source, number, place)
    row, frame = np.nonzero(frame_mask)
    step = place.first_step[row] + past[row, frame]
    slot = rows[row] * source.window + frame
    for camera in source.cameras:
        images = observation["image"][camera].reshape(-1, *source.image_size, 3)
        exists, some = find_frames(index, "image", camera, step, slot, images)
        observation["image_mask"][camera].reshape(-1)[slot] = exists
        found += some
    for camera in source.depth:
        images = observation["depth"][camera].reshape(-1, *source.image_size)
        _, some = find_frames(index, "depth", camera, step, slot, images)
        found += some
    return found


def _past(source, number, place) -> tuple[np.ndarray, np.ndarray]:
    """Steps of the window, [b t], and which of them are real."""
    return window_and_chunk(
        place.step,
        place.length,
        window=source.window,
        chunk=1,
        skip=source.skips[number],
    )[:2]


def _repeat_first_frame(observation: dict) -> None:
    """Fills the frames before the first of an episode with a copy of it."""
    padding = ~observation["frame_mask"]
    if not padding.any():
        return
    row, frame = np.nonzero(padding)
    first = padding.sum(axis=1)[row]
    depth = observation.get("depth", {})
    for image in (*observation["image"].values(), *depth.values()):
        image[row, frame] = image[row, first]

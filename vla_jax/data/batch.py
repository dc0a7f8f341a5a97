"""Samples to one numpy batch: window, chunk, masks, normalization, pixels, token ids.

Everything but the pixels is index arithmetic on memory-mapped arrays, done for all
samples of a data set at once. Images are decoded by `run`, which may be the `map` of a
thread pool, straight into the memory of the batch.
"""

from collections.abc import Callable

import numpy as np

from vla_jax.data.image import decode_and_resize
from vla_jax.data.sampler import hash_numbers
from vla_jax.data.source import Source
from vla_jax.data.statistics import action_mask as normalized_dimensions
from vla_jax.data.statistics import normalize


def window_and_chunk(step, length, *, window: int, chunk: int):
    """Gives each sampled step its past frames and its future actions.

    Args:
      step: int [b], a step of its episode.
      length: int [b], the number of steps of that episode.
      window: number of past and present frames the policy sees.
      chunk: number of actions it predicts.

    Returns:
      indices into the episode and what is real: `past [b window]`, oldest first,
      clamped at the first frame with `frame_mask` False before it; `future [b chunk]`,
      clamped at the last action with `action_mask` False after it. In the order `past,
      frame_mask, future, action_mask`.
    """
    past = step[:, None] + np.arange(1 - window, 1)
    future = step[:, None] + np.arange(chunk)
    last = length[:, None] - 1
    return np.maximum(past, 0), past >= 0, np.minimum(future, last), future <= last


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
    relative ones are zero.

    Args:
      source: what to load from.
      dataset: int32 [b], position in `source.indexes`.
      sample: int64 [b], number of the sample within the split of its data set.
      split: "train" or "validation".
      seed: chooses among alternative phrasings of an instruction.
      run: `map`, or a parallel function like it.
      empty: where the uint8 arrays for images come from; new memory if left out.

    Returns:
      nested dict with the names of `vla_jax.types.Batch`, and `dataset`, `episode` and
      `step`, int32 [b], which tell where each row comes from.

    Raises:
      ValueError: an image that cannot be decoded, naming where it is.
    """
    batch = _allocate(source, dataset, empty or _new_memory)
    images = []
    for number in np.unique(dataset):
        rows = np.flatnonzero(dataset == number)
        place = source.episodes(split)[number].locate(sample[rows])
        _fill_numbers(source, number, place, rows, batch)
        _fill_instructions(source, number, place, rows, seed, batch)
        images += _find_images(source, number, place, rows, batch["observation"])
    num_tasks = max(min(source.num_threads, len(images)), 1)
    tasks = [images[i::num_tasks] for i in range(num_tasks)]
    for _ in run(_decode, tasks):
        pass
    _repeat_first_frame(batch["observation"])
    return batch


def _allocate(source: Source, dataset: np.ndarray, empty: Callable) -> dict:
    """A batch of zeros, except for images, of which every pixel is written later."""
    b, t, c = len(dataset), source.window, source.chunk
    shape = (b, t, *source.image_size, 3)
    return {
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


def _new_memory(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, np.uint8)


def _fill_numbers(source, number, place, rows, batch):
    """Proprio and actions, normalized, with their masks."""
    index, statistics = source.indexes[number], source.statistics[number]
    past, frame_mask, future, real = window_and_chunk(
        place.step, place.length, window=source.window, chunk=source.chunk
    )
    first = place.first_step[:, None]
    proprio = np.asarray(index.proprio).take(first + past, axis=0)  # [b t p]
    action = np.asarray(index.action).take(first + future, axis=0)  # [b c a]
    relative = np.array([kind == "relative" for kind in index.spec.action])
    np.copyto(action, 0.0, where=~real[:, :, None] & relative)
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


def _fill_instructions(source, number, place, rows, seed, batch):
    """Token ids of one of the phrasings that a step has; none where it has none."""
    language = np.asarray(source.indexes[number].language)
    phrasings = language[place.first_step + place.step]
    num_phrasings = np.sum(phrasings >= 0, axis=1)  # the real ones come first
    if not num_phrasings.any():
        return
    choice = 0
    if num_phrasings.max() > 1:
        chance = hash_numbers(seed, number, place.first_step + place.step)
        choice = chance % np.maximum(num_phrasings, 1).astype(np.uint64)
    chosen = phrasings[np.arange(len(rows)), choice]
    has = chosen >= 0
    tokens, token_mask = source.instructions[number]
    batch["task"]["tokens"][rows[has]] = tokens[chosen[has]]
    batch["task"]["token_mask"][rows[has]] = token_mask[chosen[has]]


def _find_images(source, number, place, rows, observation) -> list[tuple]:
    """Lists the images of one data set: index, camera, step, and the frame to fill.

    Fills `image_mask`, and blackens the frames for which there is no image.
    """
    index, found = source.indexes[number], []
    past = place.step[:, None] + np.arange(1 - source.window, 1)
    row, frame = np.nonzero(past >= 0)
    every_step = place.first_step[row] + past[row, frame]
    slots = rows[row] * source.window + frame
    for camera in source.cameras:
        frames = observation["image"][camera].reshape(-1, *source.image_size, 3)
        if camera not in index.cameras:
            frames[slots] = 0
            continue
        exists = index.image_spans[camera][every_step, 2] > 0
        if not exists.all():
            frames[slots[~exists]] = 0
        observation["image_mask"][camera].reshape(-1)[slots[exists]] = True
        for step, slot in zip(
            every_step[exists].tolist(), slots[exists].tolist(), strict=True
        ):
            found.append((index, camera, step, frames[slot]))
    return found


def _decode(images: list[tuple]) -> None:
    """Reads and decodes some of the images that `_find_images` listed."""
    for index, camera, step, frame in images:
        try:
            decode_and_resize(index.read_image(camera, step), frame)
        except ValueError as error:
            episode = int(index.episode[step])
            raise ValueError(
                f"The image of data set '{index.spec.name}', camera '{camera}', "
                f"episode {episode}, step {step - index.first_step[episode]} cannot "
                f"be decoded: {error}. launch/index.py --validate checks a data set."
            ) from error


def _repeat_first_frame(observation: dict) -> None:
    """Fills the frames before the first of an episode with a copy of it."""
    padding = ~observation["frame_mask"]
    if not padding.any():
        return
    row, frame = np.nonzero(padding)
    first = padding.sum(axis=1)[row]
    for image in observation["image"].values():
        image[row, frame] = image[row, first]

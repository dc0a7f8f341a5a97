"""The agent: a trained policy that plays, the only stateful class of the library.

History, normalization, chunk playing and temporal ensembling live here once, for the
evaluator, the server and the notebooks alike. One agent serves several episodes at the
same time, each in a numbered slot; what happens in one slot changes no other, up to
rounding.
"""

import dataclasses
import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vla_jax.data.image import resize
from vla_jax.data.statistics import (
    Statistics,
    action_mask,
    normalize,
    unnormalize,
)
from vla_jax.data.text import Tokenizer
from vla_jax.models.build import build_model
from vla_jax.serving.playing import ChunkPlayer
from vla_jax.train.checkpoint import find_folder, restore_variables
from vla_jax.types import Observation, Task

# Every policy call has this many rows. A constant compiles once, and the same program
# answers a slot however many are in use. Which row a slot gets still depends on the
# others, and XLA may round the rows of a call differently in the last bits.
_CALL_SIZE = 8


@dataclasses.dataclass
class _Slot:
    """One running episode: its key, its past frames and its planned actions."""

    rng: jax.Array
    frames: deque
    player: ChunkPlayer
    num_calls: int = 0
    diagnostics: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Agent:
    """Plays a policy in several episodes at once.

    Attributes:
        cameras: names of the images that an observation must hold.
        image_size: height and width in pixels to which every image is resized.
        control_hz: actions per second that the policy was trained for.
        action_dim: size of an action.
        execute, ensemble: how chunks are played.
        point_cameras: camera of each attention point of the policy, which it states in
            an attribute of that name; empty for a policy without any.
    """

    def __init__(
        self,
        model: nn.Module,
        variables: Mapping[str, Any],
        metadata: Mapping[str, Any],
        tokenizer: Tokenizer,
        *,
        execute: int | None = None,
        ensemble: float | None = None,
        dataset: str | None = None,
    ):
        """Prepares a policy for playing; the first `act` compiles it.

        Args:
            model: the policy.
            variables: what `model.apply` takes: parameters and other collections.
            metadata: `Source.metadata()` of the data it was trained on.
            tokenizer: of the instructions.
            execute: actions played of each chunk before the policy looks again; the
                whole chunk when None.
            ensemble: look at every step and average all predictions for it with weights
                `exp(-ensemble * i)`, the oldest first (Zhao et al., 2023); excludes
                `execute`.
            dataset: whose statistics and cameras to use; needed after training on a
                mixture.

        Raises:
            ValueError: `execute` outside the chunk, both ways of playing at once, or an
                unknown or missing data set name.
        """
        self._metadata = metadata
        self._dataset = _pick_dataset(metadata["datasets"], dataset)
        self._statistics = {
            key: Statistics.from_json(value)
            for key, value in self._dataset["statistics"].items()
        }
        self._tokenizer = tokenizer
        self.execute, self.ensemble = execute, ensemble
        ChunkPlayer(metadata["chunk"], execute=execute, ensemble=ensemble)  # checks
        self.cameras = tuple(metadata["cameras"])
        self.image_size = tuple(metadata["image_size"])
        self.control_hz = self._dataset["control_hz"]
        self.action_dim = self._dataset["action_dim"]
        self.point_cameras = tuple(getattr(model, "point_cameras", ()))
        self._slots: dict[int, _Slot] = {}
        self._variables = jax.device_put(variables)

        def sample_one(variables, observation, task, rng):
            single = jax.tree.map(lambda x: x[None], (observation, task))
            if not self.point_cameras:
                return model.apply(variables, *single, rng, method="sample")[0], {}
            # The chunk [1 c a], and a dict with `points` and `future_points`.
            found = model.apply(variables, *single, rng, method="diagnose")
            return jax.tree.map(lambda x: x[0], found)

        self._sample = jax.jit(jax.vmap(sample_one, (None, 0, 0, 0)))

    @classmethod
    def from_checkpoint(
        cls,
        folder: str | Path,
        *,
        step: int | None = None,
        ema: bool = True,
        execute: int | None = None,
        ensemble: float | None = None,
        dataset: str | None = None,
    ) -> "Agent":
        """Loads the policy of a run; its folder alone is enough.

        Args:
            folder: a run folder or the checkpoint folder in it.
            step: a saved step; the latest when None.
            ema: take the averaged parameters where the run kept them.
            execute, ensemble: how to play, as in `Agent`; where both are None, as the
                run's `config.evaluation` says.
            dataset: whose statistics to use, as in `Agent`.

        Raises:
            ValueError: no checkpoint there, a damaged file, or an unknown name.
        """
        folder = find_folder(folder)
        config = json.loads((folder / "config.json").read_text())
        metadata = json.loads((folder / "metadata.json").read_text())
        if execute is None and ensemble is None:
            evaluation = config.get("evaluation", {})
            execute, ensemble = evaluation.get("execute"), evaluation.get("ensemble")
        return cls(
            build_model(config["model"], metadata),
            restore_variables(folder, step, ema=ema),
            metadata,
            Tokenizer.from_file(folder / "tokenizer.model"),
            execute=execute,
            ensemble=ensemble,
            dataset=dataset,
        )

    def reset(self, slot: int, seed: int = 0) -> None:
        """Starts a new episode in `slot`; `seed` is all that its draws depend on."""
        self._slots[slot] = _Slot(
            rng=jax.random.key(seed),
            frames=deque(maxlen=self._metadata["window"]),
            player=ChunkPlayer(
                self._metadata["chunk"], execute=self.execute, ensemble=self.ensemble
            ),
        )

    def needs_image(self, slot: int) -> bool:
        """Whether the next `act` looks at the images of this slot's observation.

        While a chunk is being played and the policy keeps no history it does not, and a
        simulator can save the rendering.
        """
        return self._metadata["window"] > 1 or self._slot(slot).player.is_due

    def act(
        self,
        slots: Sequence[int],
        observations: Sequence[Mapping[str, Any]],
        instructions: Sequence[str],
    ) -> np.ndarray:
        """The next action of each of these slots.

        Args:
            slots: numbers of running episodes, each at most once.
            observations: per slot `image`, camera -> uint8 [h w 3] of any size (may be
                empty where `needs_image` is False), and `proprio` f32 [p] in the
                robot's units.
            instructions: per slot what to do.

        Returns:
            float32 `[n, a]` in the units of the data set, the gripper last with 1 =
            open and 0 = closed.

        Raises:
            ValueError: a slot that was never reset, a missing camera, something that
                is no image, or a proprio of the wrong size.
        """
        due = []
        for number, observation, instruction in zip(
            slots, observations, instructions, strict=True
        ):
            slot = self._slot(number)
            slot.diagnostics = {}
            if self.needs_image(number):
                slot.frames.append(self._check(observation))
            if slot.player.is_due:
                due.append((slot, instruction))
        for start in range(0, len(due), _CALL_SIZE):
            self._predict(due[start : start + _CALL_SIZE])
        return np.stack([self._slot(number).player.next() for number in slots])

    def diagnostics(self, slot: int) -> Mapping[str, np.ndarray]:
        """What the policy attended to in the slot's last `act`, if it was asked then.

        `points` [k 2], and for a policy that predicts them `future_points` [c k 2]: x
        before y, from -1 to 1 over the pixel centers of the image of `point_cameras`.
        """
        return self._slot(slot).diagnostics

    def _predict(self, due: Sequence[tuple[_Slot, str]]) -> None:
        """Asks the policy for the chunks of at most `_CALL_SIZE` slots."""
        rows = [*due, *[due[-1]] * (_CALL_SIZE - len(due))]
        observation = _stack([self._window(slot.frames) for slot, _ in rows])
        tokens, mask = self._tokenizer.encode(
            [instruction for _, instruction in rows],
            self._metadata["text_length"],
            truncate=self._metadata["text_truncate"],
        )
        rng = jax.numpy.stack(
            [jax.random.fold_in(slot.rng, slot.num_calls) for slot, _ in rows]
        )
        task = Task(tokens, mask)
        found = self._sample(self._variables, observation, task, rng)
        chunks, diagnostics = jax.device_get(found)
        chunks = unnormalize(
            chunks[..., : self.action_dim],
            self._statistics["action"],
            self._metadata["normalization"]["action"],
            mask=action_mask(self._dataset["action"]),
        )
        for row, (slot, _) in enumerate(due):
            slot.player.add(chunks[row].astype(np.float32))
            slot.diagnostics = {key: value[row] for key, value in diagnostics.items()}
            slot.num_calls += 1

    def _window(self, frames: deque) -> Observation:
        """The last frames of one slot, the first repeated where there is no past."""
        missing = self._metadata["window"] - len(frames)
        padded = [frames[0]] * missing + list(frames)
        present = np.arange(len(padded)) >= missing
        proprio = normalize(
            np.stack([frame["proprio"] for frame in padded]),
            self._statistics["proprio"],
            self._metadata["normalization"]["proprio"],
        )
        width = self._metadata["proprio_dim"] - proprio.shape[-1]
        return Observation(
            image={
                camera: np.stack([frame[camera] for frame in padded])
                for camera in self.cameras
            },
            image_mask={
                camera: present & (camera in self._dataset["cameras"])
                for camera in self.cameras
            },
            proprio=np.pad(proprio, ((0, 0), (0, width))).astype(np.float32),
            frame_mask=present,
        )

    def _check(self, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """One frame, checked: the images, resized as in training, and the proprio."""
        expected = self._dataset["proprio_dim"]
        proprio = np.asarray(observation["proprio"], np.float32)
        if proprio.shape != (expected,):
            raise ValueError(
                f"proprio has shape {proprio.shape}; the policy was trained with "
                f"({expected},)."
            )
        frame = {"proprio": proprio}
        for camera in self.cameras:
            if camera not in self._dataset["cameras"]:
                frame[camera] = np.zeros((*self.image_size, 3), np.uint8)
                continue
            if camera not in observation["image"]:
                raise ValueError(
                    f"The policy needs camera {camera!r}; the observation has "
                    f"{sorted(observation['image'])}."
                )
            image = np.asarray(observation["image"][camera])
            if image.shape[2:] != (3,) or image.dtype != np.uint8:
                raise ValueError(
                    f"Image {camera!r} is {image.dtype} {image.shape}; the policy "
                    "needs uint8 (h, w, 3)."
                )
            frame[camera] = resize(image, *self.image_size)
        return frame

    def _slot(self, number: int) -> _Slot:
        if number not in self._slots:
            raise ValueError(f"Slot {number} has no episode; call reset({number}).")
        return self._slots[number]


def _pick_dataset(datasets: Sequence[Mapping[str, Any]], name: str | None) -> Mapping:
    """The entry of `metadata["datasets"]` whose robot is being driven."""
    names = [entry["name"] for entry in datasets]
    if name is None:
        if len(datasets) > 1:
            raise ValueError(
                f"The policy was trained on {names}; say whose robot it drives with "
                "`dataset`."
            )
        return datasets[0]
    if name not in names:
        raise ValueError(f"Unknown dataset {name!r}; the policy knows {names}.")
    return datasets[names.index(name)]


def _stack(observations: Sequence[Observation]) -> Observation:
    return jax.tree.map(lambda *rows: np.stack(rows), *observations)

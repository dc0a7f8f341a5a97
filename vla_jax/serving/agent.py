"""The agent: a trained policy that plays, the only stateful class of the library.

History, chunk playing and temporal ensembling live here once, for the evaluator and the
notebooks alike. One agent serves several episodes at the same time, each in a numbered
slot; what happens in one slot changes no other, up to rounding.
"""

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla_jax.serving.playing import ChunkPlayer
from vla_jax.serving.policy import Policy


@dataclasses.dataclass
class _Slot:
    """One running episode: its seed, its past frames and its planned actions."""

    seed: int
    frames: deque
    player: ChunkPlayer
    num_calls: int = 0
    diagnostics: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Agent:
    """Plays a policy in several episodes at once.

    Every call of the policy has the same number of rows. A constant compiles once, and
    the same program answers a slot however many are in use. Which row a slot gets still
    depends on the others, and XLA may round the rows of a call differently in the last
    bits.

    Attributes:
        cameras: names of the images that an observation must hold.
        image_size: height and width in pixels to which every image is resized.
        control_hz: actions per second that the policy was trained for.
        action_dim: size of an action.
        execute, ensemble: how chunks are played.
        point_cameras: camera of each attention point that `diagnostics` tells; empty
            for a policy without any.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        execute: int | None = None,
        ensemble: float | None = None,
    ):
        """Prepares a policy for playing; the first `act` compiles it.

        Args:
            policy: what predicts the chunks.
            execute: actions played of each chunk before the policy looks again.
            ensemble: look at every step and average all predictions for it with weights
                `exp(-ensemble * i)`, the oldest first (Zhao et al., 2023); excludes
                `execute`. Where both are None, the policy's own values count; where
                those are None too, the whole chunk is played.

        Raises:
            ValueError: `execute` outside the chunk, or both ways of playing at once.
        """
        if execute is None and ensemble is None:
            execute, ensemble = policy.execute, policy.ensemble
        self._policy, schema = policy, policy.schema
        self.execute, self.ensemble = execute, ensemble
        ChunkPlayer(schema.chunk, execute=execute, ensemble=ensemble)  # checks
        self.cameras = schema.cameras
        self.image_size = schema.image_size
        self.control_hz = schema.control_hz
        self.action_dim = schema.action_dim
        self.point_cameras = policy.point_cameras
        self._slots: dict[int, _Slot] = {}

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
        sampling: Mapping[str, Any] | None = None,
    ) -> "Agent":
        """Loads the policy of a run; its folder alone is enough.

        Args:
            folder: a run folder or the checkpoint folder in it.
            step: a saved step; the latest when None.
            ema: take the averaged parameters where the run kept them.
            execute, ensemble: how to play, as in `Agent`; where both are None, as the
                run's `config.evaluation` says.
            dataset: whose statistics and cameras to use; needed after training on a
                mixture.
            sampling: as in `Policy.from_checkpoint`.

        Raises:
            ValueError: no checkpoint there, a damaged file, or an unknown name.
        """
        policy = Policy.from_checkpoint(
            folder, step=step, ema=ema, dataset=dataset, sampling=sampling
        )
        return cls(policy, execute=execute, ensemble=ensemble)

    def reset(self, slot: int, seed: int = 0) -> None:
        """Starts a new episode in `slot`; `seed` is all that its draws depend on."""
        schema = self._policy.schema
        self._slots[slot] = _Slot(
            seed=seed,
            frames=deque(maxlen=schema.window),
            player=ChunkPlayer(
                schema.chunk, execute=self.execute, ensemble=self.ensemble
            ),
        )

    def needs_image(self, slot: int) -> bool:
        """Whether the next `act` looks at the images of this slot's observation.

        While a chunk is being played and the policy keeps no history it does not, and a
        simulator can save the rendering.
        """
        return self._policy.schema.window > 1 or self._slot(slot).player.is_due

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
                robot's units; also `depth` and `camera` for a policy that reads them,
                see `vla_jax.serving.schema`.
            instructions: per slot what to do.

        Returns:
            float32 `[n, a]` in the units of the data set, the gripper last with 1 =
            open and 0 = closed.

        Raises:
            ValueError: a slot that was never reset, a missing camera, something that
                is no image, or a proprio of the wrong size.
        """
        due, rows = [], []
        for number, observation, instruction in zip(
            slots, observations, instructions, strict=True
        ):
            slot = self._slot(number)
            slot.diagnostics = {}
            if self.needs_image(number):
                slot.frames.append(self._policy.schema.check(observation))
            if slot.player.is_due:
                due.append(slot)
                row = self._policy.row(
                    slot.frames, instruction, seed=slot.seed, call=slot.num_calls
                )
                rows.append(row)
        if due:
            chunks, diagnostics = self._policy.predict_and_tell(rows)
            for slot, chunk, told in zip(due, chunks, diagnostics, strict=True):
                slot.player.add(chunk)
                slot.diagnostics = told
                slot.num_calls += 1
        return np.stack([self._slot(number).player.next() for number in slots])

    def diagnostics(self, slot: int) -> Mapping[str, np.ndarray]:
        """What the policy attended to in the slot's last `act`, if it was asked then.

        `points` [k 2], and for a policy that predicts them `future_points` [c k 2]: x
        before y, from -1 to 1 over the pixel centers of the image of `point_cameras`.
        """
        return self._slot(slot).diagnostics

    def _slot(self, number: int) -> _Slot:
        if number not in self._slots:
            raise ValueError(f"Slot {number} has no episode; call reset({number}).")
        return self._slots[number]

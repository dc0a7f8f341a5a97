"""A trained policy as a function: windows of observations and words to action chunks.

It has no memory of an episode: `Agent` adds history and chunk playing, the server adds
clients. Everything between the robot's units and the model's happens in the compiled
program, so the live model and the exported one cannot differ in it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from vla_jax.serving.schema import Frame, Schema

PROGRAMS = ("exported", "live")

Row = dict[str, np.ndarray]  # inputs of one call without the batch axis
Inputs = Mapping[str, np.ndarray]
Predict = Callable[[Inputs], jax.Array]
Tell = Callable[[Inputs], tuple[jax.Array, dict[str, jax.Array]]]


class Encoder(Protocol):
    """The part of a tokenizer that serving uses."""

    def encode(
        self, texts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[np.ndarray, np.ndarray]: ...


class Policy:
    """Predicts chunks of actions in the units of the robot.

    Attributes:
        schema: what it reads and gives.
        execute, ensemble: how its chunks are meant to be played, see `ChunkPlayer`.
        batch_sizes: rows of a call, ascending; each size is one compiled program.
        description: where it comes from, JSON; shown to clients.
        example: inputs `[1 ...]` and the `actions` that belong to them, or empty.
        point_cameras: camera of each attention point that `predict_and_tell` tells.
    """

    def __init__(
        self,
        predict: Predict,
        schema: Schema,
        tokenizer: Encoder,
        *,
        execute: int | None = None,
        ensemble: float | None = None,
        batch_sizes: Sequence[int] = (8,),
        description: Mapping[str, Any] | None = None,
        example: Mapping[str, np.ndarray] | None = None,
        tell: Tell | None = None,
        point_cameras: Sequence[str] = (),
    ):
        """Wraps a compiled program; `load` and `from_checkpoint` find one on disk.

        Args:
            predict: inputs as `Schema.input_shapes` with a batch axis in front, to
                actions f32 [b c a] in the units of the robot.
            schema, tokenizer, execute, ensemble, batch_sizes, description, example: as
                the attributes.
            tell: as `predict`, with `points [b k 2]` and optionally
                `future_points [b c k 2]` beside the actions; None without points.
            point_cameras: as the attribute.

        Raises:
            ValueError: batch sizes that are not positive and ascending.
        """
        sizes = tuple(batch_sizes)
        if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
            raise ValueError(
                f"batch_sizes is {sizes}; expected positive numbers in ascending order."
            )
        self._predict, self._tell = predict, tell
        self.point_cameras = tuple(point_cameras) if tell else ()
        self._tokenizer = tokenizer
        self.schema = schema
        self.execute, self.ensemble = execute, ensemble
        self.batch_sizes = sizes
        self.description = dict(description or {})
        self.example = dict(example or {})

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        program: str = "exported",
        batch_sizes: Sequence[int] = (8,),
    ) -> "Policy":
        """Loads a bundle that `launch/export.py` wrote.

        Args:
            folder: of the bundle.
            program: "exported" runs the StableHLO program, which needs no model code;
                "live" builds the model anew, which needs flax, and runs where the
                exported program is too old for JAX.
            batch_sizes: as the attribute.

        Raises:
            ValueError: a file that is missing, cut short or changed, and what differs;
                or a program that this JAX or this machine cannot run.
        """
        from vla_jax.serving.bundle import load_bundle

        return load_bundle(folder, program=program, batch_sizes=batch_sizes)

    @classmethod
    def from_checkpoint(
        cls,
        folder: str | Path,
        *,
        step: int | None = None,
        ema: bool = True,
        dataset: str | None = None,
        batch_sizes: Sequence[int] = (8,),
        sampling: Mapping[str, Any] | None = None,
    ) -> "Policy":
        """Loads the policy of a run; its folder alone is enough.

        Args:
            folder: a run folder or the checkpoint folder in it.
            step: a saved step; the latest when None.
            ema: take the averaged parameters where the run kept them.
            dataset: whose robot is driven; needed after training on a mixture.
            batch_sizes: as the attribute.
            sampling: what to change of how a generative head is sampled, such as
                `{"num_steps": 4}`; see `serving.sampling.change_sampling`.

        Raises:
            ValueError: no checkpoint there, a damaged file, or an unknown name.
        """
        from vla_jax.serving.live import checkpoint_policy

        return checkpoint_policy(
            folder,
            step=step,
            ema=ema,
            dataset=dataset,
            batch_sizes=batch_sizes,
            sampling=sampling,
        )

    def row(
        self, frames: Sequence[Frame], instruction: str, *, seed: int = 0, call: int = 0
    ) -> Row:
        """The inputs of one prediction.

        Args:
            frames: what `schema.check` gave, oldest first, the present one last.
            instruction: what to do.
            seed: of the episode, below 2**32.
            call: number of predictions made before in this episode. Draws depend on
                these two alone.

        Raises:
            ValueError: the instruction is too long, or a number is out of range.
        """
        for name, value in (("seed", seed), ("call", call)):
            if not 0 <= value < 2**32:
                raise ValueError(f"{name} is {value}; expected 0 to 2**32 - 1.")
        tokens, mask = self._tokenizer.encode(
            [instruction], self.schema.text_length, truncate=self.schema.text_truncate
        )
        return {
            **self.schema.stack(frames),
            "tokens": tokens[0],
            "token_mask": mask[0],
            "seed": np.uint32(seed),
            "call": np.uint32(call),
        }

    def predict(self, rows: Sequence[Row]) -> np.ndarray:
        """Chunks f32 [n c a] of any number of rows, in as few calls as possible.

        A call has one of `batch_sizes` rows; the last row fills up what lacks. XLA may
        round the rows of calls of different sizes differently in the last bits.

        Raises:
            FloatingPointError: an action is not finite.
        """
        return self._run(self._predict, rows)

    def predict_and_tell(
        self, rows: Sequence[Row]
    ) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        """As `predict`, and what the policy attended to in every row.

        Returns:
            chunks; and for each row `points` [k 2], of `point_cameras`, and for a
            policy that predicts them `future_points` [c k 2], or nothing for a policy
            without points.
        """
        if self._tell is None:
            return self.predict(rows), [{}] * len(rows)
        chunks, told = self._run(self._tell, rows)
        return chunks, [
            {key: value[row] for key, value in told.items()} for row in range(len(rows))
        ]

    def _run(self, function: Callable, rows: Sequence[Row]) -> Any:
        found = []
        for start in range(0, len(rows), self.batch_sizes[-1]):
            part = list(rows[start : start + self.batch_sizes[-1]])
            size = next(size for size in self.batch_sizes if size >= len(part))
            padded = part + [part[-1]] * (size - len(part))
            inputs = {key: np.stack([row[key] for row in padded]) for key in part[0]}
            result = jax.device_get(function(inputs))
            found.append(jax.tree.map(lambda x, n=len(part): x[:n], result))
        result = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        actions = result if function is self._predict else result[0]
        if not np.isfinite(actions).all():
            raise FloatingPointError(
                "The policy predicted an action that is not finite."
            )
        return result

    def infer(
        self,
        observation: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        instruction: str,
        *,
        seed: int = 0,
        call: int = 0,
    ) -> np.ndarray:
        """The chunk f32 [c a] for one observation, or for a window of them.

        Raises:
            ValueError: as `Schema.check` and `row`.
        """
        window = [observation] if isinstance(observation, Mapping) else observation
        frames = [self.schema.check(frame) for frame in window]
        return self.predict([self.row(frames, instruction, seed=seed, call=call)])[0]

    def warm_up(self) -> None:
        """Compiles the program for every batch size."""
        shapes = self.schema.input_shapes()
        row = {key: np.zeros(shape, dtype) for key, (shape, dtype) in shapes.items()}
        row["frame_mask"] = np.ones_like(row["frame_mask"])
        for size in self.batch_sizes:
            self.predict([row] * size)

    def example_difference(self) -> float:
        """How far this machine's actions are from those recorded with the example.

        Returns:
            the largest difference, as a share of the largest action or of 1.

        Raises:
            ValueError: the policy has no example.
        """
        if not self.example:
            raise ValueError("This policy has no example; only bundles have one.")
        row = {key: self.example[key][0] for key in self.schema.input_shapes()}
        expected = self.example["actions"][0]
        difference = float(np.abs(self.predict([row])[0] - expected).max())
        return difference / max(1.0, float(np.abs(expected).max()))


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Powers of two up to `largest`, and that one.

    A call with few rows then costs little, and few programs are compiled.
    """
    powers = [2**k for k in range(largest.bit_length()) if 2**k < largest]
    return (*powers, largest)

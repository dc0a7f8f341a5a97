"""A policy run by its model: here is the function that is served and exported."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vla_jax.data.statistics import Statistics, action_mask, normalize, unnormalize
from vla_jax.models.build import build_model
from vla_jax.serving.policy import Encoder, Policy
from vla_jax.serving.sampling import change_sampling
from vla_jax.serving.schema import Schema, pick_dataset
from vla_jax.types import Observation, Task

_POINTS = ("points", "future_points")  # of what `diagnose` finds

Forward = Callable[[Mapping[str, Any], Mapping[str, jax.Array]], jax.Array]


def make_forward(
    model: nn.Module,
    metadata: Mapping[str, Any],
    dataset: str | None = None,
    *,
    tell: bool = False,
) -> Forward:
    """The whole way from a robot's numbers to its actions, as one function.

    Args:
        model: the policy.
        metadata: `Source.metadata()` of the data it was trained on.
        dataset: whose robot is driven; needed after training on a mixture.
        tell: give a dict with the attention points beside the actions, for a model
            that has `point_cameras`.

    Returns:
        `(variables, inputs) -> actions f32 [b c a]` with inputs as
        `Schema.input_shapes` has them, behind a batch axis. Every row has its own key,
        so what is drawn for it does not depend on the others.
    """
    schema = Schema.from_metadata(metadata, dataset)
    entry = pick_dataset(metadata["datasets"], dataset)
    # A bundle keeps one data set, and the place that it had among all.
    robot = entry.get("embodiment", metadata["datasets"].index(entry))
    kinds = metadata["normalization"]
    statistics = {
        key: Statistics.from_json(value) for key, value in entry["statistics"].items()
    }

    def one(variables, inputs):
        proprio = normalize(inputs["proprio"], statistics["proprio"], kinds["proprio"])
        missing = metadata["proprio_dim"] - proprio.shape[-1]
        observation = Observation(
            proprio=jnp.pad(proprio, ((0, 0), (0, missing))),
            frame_mask=inputs["frame_mask"],
            embodiment=jnp.int32(robot),
            **_cameras(inputs, metadata, schema),
        )
        task = Task(tokens=inputs["tokens"], token_mask=inputs["token_mask"])
        rng = jax.random.fold_in(jax.random.key(inputs["seed"]), inputs["call"])
        single = jax.tree.map(lambda x: x[None], (observation, task))
        method = "diagnose" if tell else "sample"
        found = model.apply(variables, *single, rng, method=method)
        chunk = (found["action"] if tell else found)[0]
        chunk = chunk[:, : schema.action_dim].astype(jnp.float32)
        mask = action_mask(schema.action)
        actions = unnormalize(chunk, statistics["action"], kinds["action"], mask=mask)
        if not tell:
            return actions
        return actions, {key: found[key][0] for key in _POINTS if key in found}

    return jax.vmap(one, (None, 0))


def _cameras(inputs: Mapping, metadata: Mapping, schema: Schema) -> dict[str, Any]:
    """Images, depth and matrices; black and masked where the robot has no camera."""
    t, (h, w) = schema.window, schema.image_size
    real, never = inputs["frame_mask"], jnp.zeros((t,), bool)
    cameras, depth = metadata["cameras"], metadata.get("depth", ())
    black = jnp.zeros((t, h, w, 3), jnp.uint8)
    unknown = jnp.zeros((t, h, w), jnp.float32)
    matrices = {}
    if metadata.get("camera_matrices"):
        sizes = {"intrinsics": 3, "extrinsics": 4}
        matrices = {
            camera: {
                kind: inputs.get(f"{kind}/{camera}", jnp.zeros((t, size, size)))
                for kind, size in sizes.items()
            }
            for camera in dict.fromkeys([*cameras, *depth])
        }
    return {
        "image": {c: inputs.get(f"image/{c}", black) for c in cameras},
        "image_mask": {c: real if c in schema.cameras else never for c in cameras},
        "depth": {c: inputs.get(f"depth/{c}", unknown) for c in depth},
        "camera": matrices,
    }


def live_policy(
    model: nn.Module,
    variables: Mapping[str, Any],
    metadata: Mapping[str, Any],
    tokenizer: Encoder,
    *,
    dataset: str | None = None,
    execute: int | None = None,
    ensemble: float | None = None,
    batch_sizes: Sequence[int] = (8,),
    description: Mapping[str, Any] | None = None,
    example: Mapping[str, Any] | None = None,
) -> Policy:
    """A policy that runs its model; the first prediction compiles it.

    Args:
        model: the policy's network.
        variables: what `model.apply` takes: parameters and other collections.
        metadata, dataset: as in `make_forward`.
        tokenizer: of the instructions.
        execute, ensemble, batch_sizes, description, example: as in `Policy`.

    Raises:
        ValueError: an unknown or missing data set name.
    """
    # The weights are an argument of the program, not constants in it.
    variables = jax.device_put(variables)
    forward = jax.jit(make_forward(model, metadata, dataset))
    point_cameras = getattr(model, "point_cameras", ())
    tell = None
    if point_cameras:
        tell = jax.jit(make_forward(model, metadata, dataset, tell=True))
        tell = partial(tell, variables)
    return Policy(
        partial(forward, variables),
        Schema.from_metadata(metadata, dataset),
        tokenizer,
        execute=execute,
        ensemble=ensemble,
        batch_sizes=batch_sizes,
        description=description,
        example=example,
        tell=tell,
        point_cameras=point_cameras,
    )


def checkpoint_policy(
    folder: str | Path,
    *,
    step: int | None = None,
    ema: bool = True,
    dataset: str | None = None,
    batch_sizes: Sequence[int] = (8,),
    sampling: Mapping[str, Any] | None = None,
) -> Policy:
    """As `Policy.from_checkpoint`."""
    # Only a machine with checkpoints has Orbax and SentencePiece.
    from vla_jax.data.text import Tokenizer
    from vla_jax.train.checkpoint import find_folder, restore_variables

    folder = find_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    metadata = json.loads((folder / "metadata.json").read_text())
    evaluation = config.get("evaluation", {})
    return live_policy(
        build_model(change_sampling(config["model"], sampling), metadata),
        restore_variables(folder, step, ema=ema),
        metadata,
        Tokenizer.from_file(folder / "tokenizer.model"),
        dataset=dataset,
        execute=evaluation.get("execute"),
        ensemble=evaluation.get("ensemble"),
        batch_sizes=batch_sizes,
    )

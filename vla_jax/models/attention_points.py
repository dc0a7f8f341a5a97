"""Attention points as tokens, and as something to foresee (MSACT, Cai et al., 2026).

A few 2-D points per camera are found by `MultistageMaps` and become tokens. In training
the readouts also predict where the points will be at every step of the chunk; what they
should have said is found by the same maps in the true future frames.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vla_jax.heads.base import Metrics
from vla_jax.models.attention_maps import cells_in_use, expected_position
from vla_jax.models.future_points import (
    FuturePoints,
    MovingAverage,
    spread_metrics,
    spread_penalty,
)
from vla_jax.models.image import Levels, pick_level, scale_pixels
from vla_jax.models.post_norm import TorchDense
from vla_jax.names import did_you_mean
from vla_jax.types import Context, Tokens

LABEL = "future_frames"
EMBEDDINGS = ("shared", "sine", "per_point")


class AttentionPoints(nn.Module):
    """An attention module that adds the group "points" and the loss "align".

    Attributes:
        cameras: on which points are looked for, in this order.
        maps: per camera, or "shared" for the same weights on all, `MultistageMaps`.
        width: size of a token, that of the trunk.
        future: predicts the points of later steps and compares.
        embed: "shared", one linear map from (x, y) for all points, "sine", one from
            `sine_features` of them, or "per_point", a perceptron for each.
        gather: level whose features under the map are added to the token, or "" for
            coordinates only.
        as_tokens: whether the trunk reads the points; without, they only align.
        dropout: share of the training examples whose points the trunk does not read.
            They are easier to read than the picture's own tokens, and a policy that
            may always read them need not learn to read those.
    """

    cameras: tuple[str, ...]
    maps: Mapping[str, nn.Module]
    width: int
    future: FuturePoints
    embed: str = "shared"
    gather: str = ""
    as_tokens: bool = True
    dropout: float = 0.0

    loss_name = "align"

    def setup(self):
        for camera in self.cameras:
            self._maps_of(camera)  # refuses a camera without maps
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"dropout is {self.dropout}; expected at least 0, below 1."
            )
        if self.embed not in EMBEDDINGS:
            known = did_you_mean(self.embed, EMBEDDINGS)
            raise ValueError(f"Unknown embed {self.embed!r}; {known}")
        if self.embed == "per_point":
            self.token_mlp = _PerPoint(self.width)
        else:
            self.token_project = TorchDense(self.width)
        if self.gather:
            self.gather_project = TorchDense(self.width)
        if self.future.target == "average":
            self.average = MovingAverage(self.future.decay)

    @property
    def point_cameras(self) -> tuple[str, ...]:
        """Camera of each of the points that `diagnose` tells, in their order."""
        return tuple(
            camera
            for camera in self.cameras
            for _ in range(self._maps_of(camera)[1].num_points)
        )

    @property
    def label_levels(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Of which label images the policy has to make which features."""
        levels = [
            level
            for camera in self.cameras
            for level in self._maps_of(camera)[1].encoder_levels
        ]
        return {LABEL: (tuple(self.cameras), tuple(dict.fromkeys(levels)))}

    def __call__(self, context: Context, *, train: bool) -> Context:
        """Adds maps, points and, if wanted, the token group.

        Raises:
            ValueError: the observation lacks one of the cameras.
        """
        observation = context.observation
        missing = sorted(set(self.cameras) - set(observation.image))
        if missing:
            raise ValueError(
                f"Points are wanted on the cameras {missing}; the observation has "
                f"{sorted(observation.image)}."
            )
        maps, points = {}, {}
        for camera in self.cameras:
            maps[camera], points[camera] = _extract(
                self._maps_of(camera)[1],
                observation.image[camera],
                context.features[camera],
            )
        context = context.replace(
            maps=context.maps | maps, points=context.points | points
        )
        if not self.as_tokens:
            return context
        tokens = self._embed(context)
        if train and self.dropout:
            shape = (len(tokens.mask), 1, 1)
            kept = jax.random.bernoulli(
                self.make_rng("dropout"), 1 - self.dropout, shape
            )
            tokens = tokens.replace(mask=tokens.mask & kept)
        return context.replace(groups=context.groups | {"points": tokens})

    def loss(
        self, context: Context, labels: Mapping[str, Any], *, train: bool
    ) -> tuple[Float[Array, " b"], Metrics]:
        """The distance of foreseen points from those found in the true future frames.

        Args:
            context: what the trunk made.
            labels: with the label "future_frames" of `vla_jax.data.labels` and its
                features.
            train: whether the averaged maps are moved, where they are the target.

        Raises:
            ValueError: the label or one of its cameras is missing.
        """
        label = labels.get(LABEL, {})
        if not set(self.cameras) <= set(label.get("image", {})):
            raise ValueError(
                f"The points need later frames of {list(self.cameras)}: set "
                f"data.labels to (dict(name='{LABEL}', offsets='random:4', "
                f"cameras={tuple(self.cameras)}),)."
            )
        averaged = {}
        if self.future.target == "average":
            params = {key: maps.variables["params"] for key, maps in self.maps.items()}
            averaged = self.average(params, train=train)
        targets, masks = [], []
        for camera in self.cameras:
            image, levels = label["image"][camera], label["features"].get(camera, {})
            key, module = self._maps_of(camera)
            if averaged:
                module = module.unbind()[0].bind({"params": averaged[key]})
            targets.append(_extract(module, image, levels)[1])
            real = label["mask"] & label["image_mask"][camera]
            masks.append(jnp.broadcast_to(real[..., None], targets[-1].shape[:3]))
        target, mask = jnp.concatenate(targets, 2), jnp.concatenate(masks, 2)
        present = [context.points[camera][:, -1] for camera in self.cameras]
        loss, metrics = self.future(context, target, mask, label["offset"])
        metrics |= spread_metrics(
            jnp.concatenate([p[:, None] for p in present], 2), target, mask
        )
        metrics["map_cells"] = sum(
            cells_in_use(context.maps[camera]) for camera in self.cameras
        ) / len(self.cameras)
        if self.future.repulsion:
            penalty = sum(spread_penalty(points) for points in present)
            loss = loss + self.future.repulsion * penalty
            metrics["repulsion"] = penalty
        return loss, metrics

    def diagnose(self, context: Context) -> dict[str, Any]:
        """Points of the present frame and of the chunk, (x, y) in -1..1.

        Returns:
            `points [b k 2]` and `future_points [b c k 2]` of all cameras in line, as
            `cameras` orders them; `camera_points` and `camera_future_points`, the same
            by camera.
        """
        present = {camera: context.points[camera][:, -1] for camera in self.cameras}
        points = jnp.concatenate(list(present.values()), 1)
        future = self.future.predict(context, points.shape[1])
        ends = np.cumsum([each.shape[1] for each in present.values()])
        parts = jnp.split(future, ends[:-1], axis=2)
        return {
            "points": points,
            "future_points": future,
            "camera_points": present,
            "camera_future_points": dict(zip(self.cameras, parts, strict=True)),
        }

    def _maps_of(self, camera: str) -> tuple[str, nn.Module]:
        for key in (camera, "shared"):
            if key in self.maps:
                return key, self.maps[key]
        raise ValueError(
            f"No maps for camera {camera!r}; they are for {sorted(self.maps)} (the "
            "name 'shared' serves every camera)."
        )

    def _embed(self, context: Context) -> Tokens:
        """Tokens `[b t k d]`; which point is which, the trunk tells by their order."""
        observation, masks, under = context.observation, [], []
        for camera in self.cameras:
            maps = context.maps[camera]
            real = observation.image_mask[camera] & observation.frame_mask
            masks.append(jnp.broadcast_to(real[..., None], maps.shape[:3]))
            if self.gather:
                level = pick_level(context.features[camera], self.gather)
                under.append(_read(maps, level))
        points = jnp.concatenate([context.points[c] for c in self.cameras], 2)
        if self.embed == "per_point":
            values = self.token_mlp(points)
        elif self.embed == "sine":
            values = self.token_project(sine_features(points))
        else:
            values = self.token_project(points)
        if self.gather:
            values = values + self.gather_project(jnp.concatenate(under, 2))
        return Tokens(values=values, mask=jnp.concatenate(masks, 2))


def _read(
    maps: Float[Array, "b t k h w"], level: Float[Array, "b t _h _w d"]
) -> Float[Array, "b t k d"]:
    """The mean of a coarser level under each map."""
    # Shrinking the map instead of enlarging the level reads the same for less.
    size = (*maps.shape[:3], *level.shape[2:4])
    weights = jax.image.resize(maps, size, "linear", antialias=True)
    weights = weights / jnp.sum(weights, (3, 4), keepdims=True)
    return jnp.einsum("btkhw,bthwd->btkd", weights, level)


def sine_features(points: Float[Array, "b t k 2"]) -> Float[Array, "b t k f"]:
    """Sines and cosines of a point in four octaves (Mildenhall et al., 2020, eq. 4).

    What a point is on moves over a small part of the picture, and (x, y) by as little;
    here a tenth of the picture is a difference as large as any.
    """
    octaves = [np.pi * 2.0**octave * points for octave in range(4)]
    angle = jnp.stack(octaves, -1)
    features = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
    return features.reshape(*points.shape[:-1], -1)


class _PerPoint(nn.Module):
    """A perceptron of its own for each point."""

    width: int

    @nn.compact
    def __call__(self, points: Float[Array, "b t k 2"]) -> Float[Array, "b t k d"]:
        count, width = points.shape[2], self.width
        init = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=(0,))
        hidden = self.param("in", init, (count, 2, width))
        bias = self.param("in_bias", nn.initializers.normal(1.0), (count, width))
        out = self.param("out", init, (count, width, width))
        x = nn.relu(jnp.einsum("btkx,kxd->btkd", points, hidden) + bias[None, None])
        return jnp.einsum("btkd,kde->btke", x, out)


def _extract(
    module: nn.Module, image: jax.Array, levels: Levels
) -> tuple[jax.Array, jax.Array]:
    """Maps `[b t k h w]` and points `[b t k 2]` of images `[b t h w 3]` of 0..255."""
    b, t = image.shape[:2]

    def flatten(x):
        return x.reshape(b * t, *x.shape[2:])

    flat = {name: flatten(x) for name, x in levels.items()}
    maps = module(scale_pixels(flatten(image)), flat)
    points = expected_position(maps)
    return maps.reshape(b, t, *maps.shape[1:]), points.reshape(b, t, -1, 2)

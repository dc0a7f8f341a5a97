"""A policy: encoders, then attention modules, then the trunk, then an action head."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

from vla_jax.heads.base import Metrics
from vla_jax.models.image import scale_pixels
from vla_jax.types import Batch, Context, Observation, Task, Tokens


class Policy(nn.Module):
    """Predicts a chunk of actions from a window of observations and an instruction.

    Attributes:
        image: per camera an encoder `(images -1..1 [n h w 3], train) -> levels`. The
            name "shared" stands for one encoder with the same weights for all cameras.
        tokens: per camera, or "shared", a module `(levels, image_mask) -> Tokens`.
        trunk: `(context, train) -> context` with tokens and readouts.
        head: the action head.
        text: `(task, train) -> Tokens`; None for a policy that reads no instruction.
        attention: modules `(context, train) -> context`, applied in order before the
            trunk. One with a `loss(context, labels, train)` also has a `loss_name`,
            under which its loss is weighted and logged. If it has `label_levels`, label
            name -> (cameras, feature levels), these labels come with the `features` of
            their images. One with `diagnose(context)` adds to what `diagnose` shows.
        proprio: whether the policy reads its own joint or end-effector state; or the
            module `[b t p] -> [b t d]` that makes a token of it.
        proprio_dropout: share of the training examples whose token of proprio is
            masked. Where a demonstration has got to tells what comes next, and a policy
            that may always read it learns to look late or never.
        latent: `(proprio, action, mask, train) -> (Tokens, loss, metrics)` with a
            method `prior(batch) -> Tokens`: what training may know of the actions to
            come, such as `ActionVAE`. Its loss is called "latent".
    """

    image: Mapping[str, nn.Module]
    tokens: Mapping[str, nn.Module]
    trunk: nn.Module
    head: nn.Module
    text: nn.Module | None = None
    attention: tuple[nn.Module, ...] = ()
    proprio: nn.Module | bool = True
    proprio_dropout: float = 0.0
    latent: nn.Module | None = None

    @property
    def point_cameras(self) -> tuple[str, ...]:
        """Camera of each of the points that `diagnose` tells; empty without points."""
        found = [getattr(module, "point_cameras", ()) for module in self.attention]
        return tuple(camera for cameras in found for camera in cameras)

    def setup(self):
        if self.proprio is True:
            self.proprio_project = nn.Dense(self.trunk.width)
        if not 0 <= self.proprio_dropout < 1:
            raise ValueError(
                f"proprio_dropout is {self.proprio_dropout}; expected at least 0, "
                "below 1."
            )

    def encode(
        self,
        observation: Observation,
        task: Task,
        *,
        train: bool,
        latent: Tokens | None = None,
    ) -> Context:
        """Features and token groups of every input, refined by the attention modules.

        Args:
            observation: a window of frames.
            task: what to do.
            train: whether dropout is on.
            latent: token of the policy's `latent`; the one of its prior when left out.

        Raises:
            ValueError: the observation lacks a camera that the policy was built for,
                or has one that it was not.
        """
        cameras = {*self.image, *self.tokens} - {"shared"}
        missing = sorted(cameras - set(observation.image))
        if missing:
            raise ValueError(
                f"The policy needs the cameras {missing} too; the observation "
                f"has only {sorted(observation.image)}."
            )
        context = Context(observation=observation, task=task)
        groups = {}
        if self.text is not None:
            language = self.text(task, train=train)
            groups["language"] = Tokens(
                language.values[:, None], language.mask[:, None]
            )  # [b 1 l d]
        if self.latent is not None:
            batch = observation.frame_mask.shape[0]
            groups["latent"] = self.latent.prior(batch) if latent is None else latent
        features = {
            camera: self._features(camera, image, train=train)
            for camera, image in sorted(observation.image.items())
        }
        context = context.replace(features=features)
        for module in self.attention:
            context = module(context, train=train)
        for camera, levels in context.features.items():
            real = observation.image_mask[camera] & observation.frame_mask
            groups[camera] = _pick(self.tokens, camera, "tokens")(levels, real)
        if self.proprio:
            project = self.proprio_project if self.proprio is True else self.proprio
            value = project(observation.proprio)[:, :, None]
            mask = observation.frame_mask
            if train and self.proprio_dropout:
                share, shape = 1 - self.proprio_dropout, (len(mask), 1)
                rng = self.make_rng("dropout")
                mask = mask & jax.random.bernoulli(rng, share, shape)
            groups["proprio"] = Tokens(value, mask[..., None])
        return context.replace(groups={**groups, **context.groups})

    def _features(
        self,
        camera: str,
        image: Num[Array, "b t h w 3"],
        *,
        train: bool,
        levels: tuple[str, ...] = (),
    ) -> dict[str, Float[Array, "b t _h _w _d"]]:
        """The feature levels of a camera; no further than `levels` if given."""
        b, t = image.shape[:2]
        flat = scale_pixels(image.reshape(b * t, *image.shape[2:]))
        options = dict(levels=levels) if levels else {}
        found = _pick(self.image, camera, "image")(flat, train=train, **options)
        return {name: x.reshape(b, t, *x.shape[1:]) for name, x in found.items()}

    def _label_features(
        self, module: nn.Module, labels: Mapping[str, Any], *, train: bool
    ) -> dict[str, Any]:
        """The labels, with features of the images that `module` wants them of."""
        labels = dict(labels)
        for name, (cameras, levels) in getattr(module, "label_levels", {}).items():
            if name not in labels:
                continue
            features = {
                camera: self._features(
                    camera, labels[name]["image"][camera], train=train, levels=levels
                )
                for camera in cameras
                if levels and camera in labels[name]["image"]
            }
            labels[name] = {**labels[name], "features": features}
        return labels

    def __call__(
        self,
        observation: Observation,
        task: Task,
        *,
        train: bool = False,
        latent: Tokens | None = None,
    ) -> Context:
        """The context that the head reads."""
        context = self.encode(observation, task, train=train, latent=latent)
        return self.trunk(context, train=train)

    def loss(
        self,
        batch: Batch,
        *,
        train: bool,
        weights: Mapping[str, float | jax.Array] | None = None,
    ) -> tuple[Float[Array, " b"], Metrics]:
        """The weighted sum of the losses of head, latent and attention modules.

        A head has the loss "action", or those that its `losses` names. A loss of weight
        0 is left out of sum and metrics, so that none of it is computed. Where all that
        is left sends no gradient into the context, the context is made as when playing,
        without dropout.

        Args:
            batch: `action` and `action_mask` are `[b c a]`, normalized.
            train: whether dropout is on.
            weights: loss name -> weight, 1 where absent; the phase's `loss_weights`.

        Raises:
            ValueError: `weights` names a loss that this policy does not have.
        """
        modules = [module for module in self.attention if hasattr(module, "loss")]
        names = [
            *getattr(self.head, "loss_names", ("action",)),
            *(("latent",) if self.latent is not None else ()),
            *(module.loss_name for module in modules),
        ]
        unknown = sorted(set(weights or {}) - set(names))
        if unknown:
            raise ValueError(
                f"Unknown loss weights {unknown}; this policy has {sorted(names)}."
            )
        weights = {name: (weights or {}).get(name, 1.0) for name in names}
        # A weight that grows is an array, whose value is not known here.
        on = {n for n, w in weights.items() if isinstance(w, jax.Array) or w}
        train_context = train and not on.issubset(getattr(self.head, "detached", ()))
        losses, latent = {}, None
        if self.latent is not None:
            latent, *losses["latent"] = self.latent(
                batch.observation.proprio[:, -1],
                batch.action,
                batch.action_mask,
                train=train_context,
            )
        context = self(
            batch.observation, batch.task, train=train_context, latent=latent
        )
        losses |= self._head_losses(context, batch, train=train)
        for module in modules:
            labels = self._label_features(module, batch.labels, train=train)
            losses[module.loss_name] = module.loss(context, labels, train=train)
        total = jnp.zeros(batch.action.shape[0])
        metrics = {}
        for name, (loss, extra) in losses.items():
            if name in on:
                total = total + weights[name] * loss
                metrics |= {f"{name}/{key}": value for key, value in extra.items()}
        return total, metrics

    def _head_losses(
        self, context: Context, batch: Batch, *, train: bool
    ) -> dict[str, tuple[Float[Array, " b"], Metrics]]:
        arguments = (context, batch.action, batch.action_mask)
        if hasattr(self.head, "losses"):
            return self.head.losses(*arguments, train=train)
        return {"action": self.head.loss(*arguments, train=train)}

    def sample(
        self, observation: Observation, task: Task, rng: Key[Array, ""]
    ) -> Float[Array, "b c a"]:
        """A chunk of normalized actions."""
        return self.head.sample(self(observation, task), rng)

    def diagnose(
        self, observation: Observation, task: Task, rng: Key[Array, ""]
    ) -> dict[str, Any]:
        """What the policy does, and what it looks at while it does it.

        Returns:
            `action [b c a]`, normalized; `maps`, camera to the attention maps of the
            present frame, `[b h w]` or `[b k h w]`; and what the attention modules add:
            those with points `points [b k 2]` and `future_points [b c k 2]`.
        """
        context = self(observation, task)
        maps = {camera: value[:, -1] for camera, value in context.maps.items()}
        found = {"action": self.head.sample(context, rng), "maps": maps}
        for module in self.attention:
            if hasattr(module, "diagnose"):
                found |= module.diagnose(context)
        return found

    def explain(
        self, observation: Observation, task: Task, rng: Key[Array, ""]
    ) -> dict[str, Float[Array, "b c a"]]:
        """The parts of a sample, for a head that is made of parts.

        Raises:
            ValueError: the head has none.
        """
        if not hasattr(self.head, "explain"):
            raise ValueError(
                "This policy's head has no parts to explain; 'hierarchical' has."
            )
        return self.head.explain(self(observation, task), rng)


def _pick(modules: Mapping[str, nn.Module], camera: str, what: str) -> nn.Module:
    if camera in modules:
        return modules[camera]
    if "shared" in modules:
        return modules["shared"]
    raise ValueError(
        f"No {what} module for camera {camera!r}; model.{what} has {sorted(modules)} "
        "(the name 'shared' serves every camera)."
    )

"""Anchor and refinement: one head for the chunk, one for what it leaves unexplained.

AnchorRefine (Jia et al., 2026). Phase one trains `anchor` on the whole action. Phase
two freezes everything of phase one and trains `refine` on the residual of the anchor's
detached prediction, and on the smallest change of the gripper's probability that
decides right. Both read the same context, neither reads the other.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from vla_jax.heads.base import Metrics, masked_mean
from vla_jax.heads.generative import GenerativeHead
from vla_jax.heads.gripper import GRIPPER_TARGETS, decide_gripper, gripper_mask
from vla_jax.heads.residuals import flip_metrics, size_metrics
from vla_jax.names import did_you_mean
from vla_jax.types import Context, Tokens

LOSSES = ("anchor", "refine")
TARGETS = ("residual", "action")
SCALE = "residual_scale"  # collection with the moments of the residuals
_SCALE_BATCHES = 1000  # batches after which the moments no longer change
_SCALE_FLOOR = 1e-3


class HierarchicalHead(nn.Module):
    """Adds the prediction of `refine` to that of `anchor`.

    Its losses are called "anchor" and "refine". A phase that trains one gives the other
    the weight 0 and freezes its part, so that nothing of it is computed or moved.

    A generative anchor draws the same noise for every sample, in training and when
    playing: only so is the anchor that is corrected the one whose residuals were
    learned, since the refinement does not see the noise. A plain generative policy,
    which an anchor is measured against, draws it anew: `anchor_seed=None`.

    Attributes:
        anchor: a regression, flow or diffusion head with or without `gripper_dims`.
        refine: another with the same `gripper_dims`. To start from a zero residual,
            its untrained output must be zero, and it must predict "sample" if it is
            generative.
        target: what `refine` learns for the arm: the "residual", or, as an ablation,
            the "action" itself, which then replaces the anchor's.
        gripper_target: one of `GRIPPER_TARGETS`; None leaves the gripper to the anchor.
        gripper_weight: of the gripper's mean square error.
        gripper_eps: margin by which a corrected probability passes the boundary.
        detach: whether phase two sends no gradient into anchor and context.
        explicit: an ablation; `refine` also reads the anchor, as further tokens.
        scale_residual: divide residuals by their standard deviation per dimension, as
            generative refinements need, whose noise has unit size. Measured on the
            first 1000 batches of phase two.
        anchor_seed: of the noise of a generative anchor; None draws it anew for every
            sample, as a policy without refinement does.
    """

    anchor: nn.Module
    refine: nn.Module
    target: str = "residual"
    gripper_target: str | None = "boundary"
    gripper_weight: float = 0.01
    gripper_eps: float = 0.1
    detach: bool = True
    explicit: bool = False
    scale_residual: bool = False
    anchor_seed: int | None = 0

    def setup(self):
        self._check()
        if self.explicit:
            self.anchor_tokens = AnchorTokens()
        if self.scale_residual:
            shape = (3, self.anchor.action_dim)  # count, sum, sum of squares
            self.moments = self.variable(SCALE, "moments", jnp.zeros, shape)
            self.batches = self.variable(SCALE, "batches", jnp.zeros, ())

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of what `losses` returns."""
        return LOSSES

    @property
    def detached(self) -> tuple[str, ...]:
        """Names of the losses that send no gradient into the context."""
        return ("refine",) if self.detach else ()

    def losses(
        self,
        context: Context,
        action: Float[Array, "b c a"],
        mask: Bool[Array, "b c a"],
        *,
        train: bool,
    ) -> dict[str, tuple[Float[Array, " b"], Metrics]]:
        """The loss of each part, and what the anchor leaves and the refinement does."""
        loss, metrics = self.anchor.loss(context, action, mask, train=train)
        if self.detach:
            context = jax.lax.stop_gradient(context)
        drawn = self.anchor_seed is None
        anchor = self._anchor(context, self.make_rng("noise") if drawn else None)
        if self.detach:
            anchor = jax.lax.stop_gradient(anchor)
        if not train:
            arm = mask & ~self._is_gripper
            sizes = size_metrics("residual", action - anchor, arm)
            metrics = {**metrics, **size_metrics("action", action, arm), **sizes}
        refine = self._refine_loss(context, anchor, action, mask, train=train)
        return {"anchor": (loss, metrics), "refine": refine}

    def loss(
        self,
        context: Context,
        action: Float[Array, "b c a"],
        mask: Bool[Array, "b c a"],
        *,
        train: bool,
    ) -> tuple[Float[Array, " b"], Metrics]:
        """The sum of both losses, for whoever does not weigh them apart."""
        losses = self.losses(context, action, mask, train=train)
        total = sum(loss for loss, _ in losses.values())
        return total, {
            f"{name}/{key}": value
            for name, (_, metrics) in losses.items()
            for key, value in metrics.items()
        }

    def sample(self, context: Context, rng: Key[Array, ""]) -> Float[Array, "b c a"]:
        """The refined chunk, with the gripper decided."""
        final = self.explain(context, rng)["final"]
        return decide_gripper(final, self.anchor.gripper_dims)

    def explain(
        self, context: Context, rng: Key[Array, ""]
    ) -> dict[str, Float[Array, "b c a"]]:
        """The parts of a sample: "anchor", "residual" and "final".

        In the gripper's dimensions they are the anchor's probability of being open, its
        correction, and the sum, before the decision.
        """
        drawn = self.anchor_seed is None
        anchor_rng, rng = jax.random.split(rng) if drawn else (None, rng)
        anchor = self._anchor(context, anchor_rng)
        rngs = jax.random.split(rng, anchor.shape[0])
        residual = self.refine.residual(self._view(context, anchor), rngs)
        final = self._combine(anchor, residual)
        return {"anchor": anchor, "residual": self._rescale(residual), "final": final}

    def _anchor(self, context: Context, rng: jax.Array | None) -> jax.Array:
        batch = context.readout.shape[0]
        if rng is None:
            rngs = jnp.broadcast_to(jax.random.key(self.anchor_seed), (batch,))
        else:
            rngs = jax.random.split(rng, batch)
        return self.anchor.predict(context, rngs)

    def _refine_loss(
        self,
        context: Context,
        anchor: jax.Array,
        action: jax.Array,
        mask: jax.Array,
        *,
        train: bool,
    ) -> tuple[jax.Array, Metrics]:
        arm, gripper = mask & ~self._is_gripper, mask & self._is_gripper
        residual = action - anchor
        if self.scale_residual and train and not self.is_initializing():
            self._measure(jax.lax.stop_gradient(residual), arm)
        target = action if self.target == "action" else residual
        view = self._view(context, anchor)
        loss, output = self.refine.residual_loss(
            view, target / self._scale(), mask, train=train
        )
        metrics = {
            "residual_loss": loss,
            **size_metrics("action", action, arm),
            **size_metrics("anchor_residual", residual, arm),
        }
        if self.gripper_target is not None:
            make_target = GRIPPER_TARGETS[self.gripper_target]
            probability = jax.lax.stop_gradient(anchor)
            wanted = make_target(probability, action, self.gripper_eps)
            error = masked_mean(jnp.square(output - wanted), gripper)
            loss = loss + self.gripper_weight * error
            metrics["gripper_loss"] = error
        if self._generative and not train:
            # Only here: a draw costs as many passes as when playing.
            rngs = jax.random.split(self.make_rng("noise"), anchor.shape[0])
            output = self.refine.residual(view, rngs)
        final = self._combine(anchor, output)
        if not (self._generative and train):
            metrics |= size_metrics("final_residual", action - final, arm)
        if self.anchor.gripper_dims:
            metrics |= flip_metrics(anchor, final, action, gripper)
        return loss, metrics

    def _view(self, context: Context, anchor: jax.Array) -> Context:
        return self.anchor_tokens(context, anchor) if self.explicit else context

    def _combine(self, anchor: jax.Array, residual: jax.Array) -> jax.Array:
        """The refined arm, and the corrected probability of the gripper."""
        corrected = anchor if self.gripper_target is None else anchor + residual
        arm = self._rescale(residual)
        if self.target == "residual":
            arm = anchor + arm
        return jnp.where(self._is_gripper, corrected, arm)

    def _rescale(self, residual: jax.Array) -> jax.Array:
        return residual * self._scale()

    def _scale(self) -> jax.Array:
        """Standard deviation of the arm's residuals, `[1 1 a]`; 1 where unknown."""
        if not self.scale_residual:
            return jnp.ones((1, 1, 1))
        count, total, square = self.moments.value
        mean = total / jnp.maximum(count, 1e-6)
        variance = square / jnp.maximum(count, 1e-6) - jnp.square(mean)
        scale = jnp.maximum(jnp.sqrt(jnp.maximum(variance, 0.0)), _SCALE_FLOOR)
        return jnp.where(count > 0, scale, 1.0)[None, None]

    def _measure(self, residual: jax.Array, mask: jax.Array) -> None:
        """Adds a batch to the moments, until enough have been seen."""
        real = jnp.where(mask, residual, 0.0)
        moments = jnp.stack(
            [jnp.sum(x, (0, 1)) for x in (mask, real, jnp.square(real))]
        )
        batches = self.batches.value + 1
        mean = self.moments.value + (moments - self.moments.value) / batches
        more = batches <= _SCALE_BATCHES
        self.moments.value = jnp.where(more, mean, self.moments.value)
        self.batches.value = jnp.where(more, batches, self.batches.value)

    @property
    def _is_gripper(self) -> np.ndarray:
        return gripper_mask(self.anchor.action_dim, self.anchor.gripper_dims)

    @property
    def _generative(self) -> bool:
        return isinstance(self.refine, GenerativeHead)

    def _check(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(
                f"Unknown target {self.target!r}; {did_you_mean(self.target, TARGETS)}"
            )
        if self.gripper_target not in (None, *GRIPPER_TARGETS):
            raise ValueError(
                f"Unknown gripper_target {self.gripper_target!r}; "
                f"{did_you_mean(self.gripper_target, GRIPPER_TARGETS)} None leaves the "
                "gripper to the anchor."
            )
        for field in ("chunk", "action_dim", "gripper_dims"):
            one, other = getattr(self.anchor, field), getattr(self.refine, field)
            if one != other:
                raise ValueError(
                    f"anchor.{field} is {one} and refine.{field} {other}; they must "
                    "agree."
                )
        if self._generative and self.refine.prediction != "sample":
            raise ValueError(
                f"refine.prediction is {self.refine.prediction!r}; a generative "
                "refinement needs 'sample', so that zero output is a zero residual."
            )


class AnchorTokens(nn.Module):
    """Appends the anchor's actions to the tokens of the context."""

    @nn.compact
    def __call__(self, context: Context, anchor: Float[Array, "b c a"]) -> Context:
        tokens = context.tokens
        width = tokens.values.shape[-1]
        position = self.param(
            "position", nn.initializers.normal(0.02), (anchor.shape[1], width)
        )
        values = nn.Dense(width, name="project")(anchor) + position[None]
        mask = jnp.ones(values.shape[:2], bool)
        return context.replace(
            tokens=Tokens(
                jnp.concatenate([tokens.values, values], 1),
                jnp.concatenate([tokens.mask, mask], 1),
            )
        )

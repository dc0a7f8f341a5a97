"""Diffusion head: undo noise step by step, from a normal draw to an action chunk."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from vla_jax.heads.base import masked_mean
from vla_jax.heads.generative import GenerativeHead
from vla_jax.heads.schedule import (
    add_noise,
    alpha_bars,
    ddim_step,
    ddpm_step,
    find_prediction,
    sampling_steps,
)
from vla_jax.names import did_you_mean
from vla_jax.types import Context

SAMPLERS = ("ddpm", "ddim")


class DiffusionHead(GenerativeHead):
    """Trains as DDPM (Ho et al., 2020) with the cosine schedule; samples by either way.

    The denoiser's time is the integer timestep, 0 for the least noise.

    Attributes:
        num_timesteps: noise levels of training.
        num_steps: denoiser passes of `sample`.
        prediction: what the denoiser predicts, "epsilon", "sample" or "velocity".
        sampler: "ddpm" or "ddim".
        clip: bound of the data and of every estimate of it; None for no bound. 1 suits
            actions scaled to -1..1, 5 those divided by their standard deviation.
    """

    num_timesteps: int = 100
    num_steps: int = 100
    prediction: str = "epsilon"
    sampler: str = "ddpm"
    clip: float | None = 1.0

    @property
    def _noisy_end(self) -> int:
        return self.num_timesteps - 1

    def _denoising(
        self, context: Context, action: jax.Array, mask: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        prediction = find_prediction(self.prediction)
        noise_rng, time_rng = jax.random.split(self.make_rng("noise"))
        noise = jax.random.normal(noise_rng, action.shape)
        timestep = jax.random.randint(time_rng, action.shape[:1], 0, self.num_timesteps)
        bars = jnp.asarray(alpha_bars(self.num_timesteps), jnp.float32)
        alpha_bar = bars[timestep][:, None, None]
        clean = self._clip(action)
        output = self._network(
            add_noise(clean, noise, alpha_bar),
            timestep.astype(jnp.float32),
            self.denoiser.prepare(context),
            train=train,
        )
        error = output - prediction.target(clean, noise, alpha_bar)
        return masked_mean(jnp.square(error), mask & ~self._is_gripper), output

    def _generate(
        self, context: Context, rngs: Key[Array, " b"]
    ) -> tuple[jax.Array, jax.Array]:
        if self.sampler not in SAMPLERS:
            raise ValueError(
                f"Unknown sampler {self.sampler!r}; "
                f"{did_you_mean(self.sampler, SAMPLERS)}"
            )
        prepared = self.denoiser.prepare(context)
        prediction = find_prediction(self.prediction)
        schedule = sampling_steps(self.num_timesteps, self.num_steps)
        start = self._draw(rngs)

        def step(carry, now):
            noisy, _ = carry
            timestep, alpha_bar, next_alpha_bar = now
            time = jnp.full(noisy.shape[:1], timestep, jnp.float32)
            output = self._network(noisy, time, prepared, train=False)
            clean, noise = prediction.split(output, noisy, alpha_bar)
            clean = self._clip(clean)
            if self.sampler == "ddim":
                return (ddim_step(clean, noise, next_alpha_bar), output), None
            keys = jax.vmap(jax.random.fold_in, (0, None))(rngs, timestep)
            fresh = self._draw(keys)
            noisy = ddpm_step(clean, noisy, fresh, alpha_bar, next_alpha_bar)
            return (noisy, output), None

        carry = (start, jnp.zeros_like(start))
        return jax.lax.scan(step, carry, jax.tree.map(jnp.asarray, tuple(schedule)))[0]

    def _clip(self, chunk: jax.Array) -> jax.Array:
        return chunk if self.clip is None else jnp.clip(chunk, -self.clip, self.clip)

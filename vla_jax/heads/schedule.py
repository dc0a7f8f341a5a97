"""Arithmetic of diffusion: noise schedule, parametrizations, one step of each sampler.

`alpha_bar` is the share of the signal's variance that is left, 1 for clean data.
Timestep `k` counts from 0 (least noise) to `num_timesteps - 1` (most).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vla_jax.names import did_you_mean

_OFFSET = 0.008  # keeps the first beta from vanishing
_MAX_BETA = 0.999

Chunk = Float[Array, "b c a"]
Scalar = Float[Array, "*#batch"]


def cosine_betas(num_timesteps: int) -> np.ndarray:
    """The cosine schedule (Nichol & Dhariwal, 2021, eq. 17), float64 `[num_timesteps]`.

    `f(t) = cos^2((t / K + 0.008) / 1.008 * pi / 2)`, `beta = 1 - f(t + 1) / f(t)`, at
    most 0.999.
    """
    t = np.arange(num_timesteps + 1) / num_timesteps
    f = np.cos((t + _OFFSET) / (1 + _OFFSET) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], _MAX_BETA)


def alpha_bars(num_timesteps: int) -> np.ndarray:
    """Cumulative product of `1 - beta`, float64 `[num_timesteps]`."""
    return np.cumprod(1 - cosine_betas(num_timesteps))


class SamplingStep(NamedTuple):
    """One step of a sampler: from timestep `timestep` to less noise."""

    timestep: np.ndarray
    alpha_bar: np.ndarray  # at `timestep`
    next_alpha_bar: np.ndarray  # where the step leads; 1 at the end


def sampling_steps(num_timesteps: int, num_steps: int) -> SamplingStep:
    """The steps of a sampler in order, each field `[num_steps]`.

    Timesteps are evenly spaced and end at 0 ("leading" spacing, as Diffusion Policy).

    Raises:
        ValueError: more steps than timesteps, or none.
    """
    if not 1 <= num_steps <= num_timesteps:
        raise ValueError(
            f"num_steps is {num_steps}; expected 1 to num_timesteps={num_timesteps}."
        )
    timestep = np.arange(num_steps)[::-1] * (num_timesteps // num_steps)
    bars = alpha_bars(num_timesteps)[timestep]
    return SamplingStep(
        timestep.astype(np.int32),
        bars.astype(np.float32),
        np.append(bars[1:], 1.0).astype(np.float32),
    )


def add_noise(clean: Chunk, noise: Chunk, alpha_bar: Scalar) -> Chunk:
    """What is left of `clean` at a noise level: sqrt(abar) x0 + sqrt(1 - abar) eps."""
    return jnp.sqrt(alpha_bar) * clean + jnp.sqrt(1 - alpha_bar) * noise


def _epsilon(output, noisy, alpha_bar):
    clean = (noisy - jnp.sqrt(1 - alpha_bar) * output) / jnp.sqrt(alpha_bar)
    return clean, output


def _sample(output, noisy, alpha_bar):
    noise = (noisy - jnp.sqrt(alpha_bar) * output) / jnp.sqrt(1 - alpha_bar)
    return output, noise


def _velocity(output, noisy, alpha_bar):
    clean = jnp.sqrt(alpha_bar) * noisy - jnp.sqrt(1 - alpha_bar) * output
    return clean, jnp.sqrt(alpha_bar) * output + jnp.sqrt(1 - alpha_bar) * noisy


class Prediction(NamedTuple):
    """What a network may be trained to predict.

    Attributes:
        target: `(clean, noise, alpha_bar) -> target of the network`.
        split: `(output, noisy, alpha_bar) -> (clean, noise)` that the output implies.
    """

    target: Callable
    split: Callable


PREDICTIONS = {
    "epsilon": Prediction(lambda clean, noise, alpha_bar: noise, _epsilon),
    "sample": Prediction(lambda clean, noise, alpha_bar: clean, _sample),
    # Salimans & Ho (2022), appendix D.
    "velocity": Prediction(
        lambda clean, noise, alpha_bar: (
            jnp.sqrt(alpha_bar) * noise - jnp.sqrt(1 - alpha_bar) * clean
        ),
        _velocity,
    ),
}


def find_prediction(name: str) -> Prediction:
    """The entry of `PREDICTIONS`; raises ValueError for an unknown name."""
    if name not in PREDICTIONS:
        raise ValueError(
            f"Unknown prediction {name!r}; {did_you_mean(name, PREDICTIONS)}"
        )
    return PREDICTIONS[name]


def ddpm_step(
    clean: Chunk, noisy: Chunk, noise: Chunk, alpha_bar: Scalar, next_alpha_bar: Scalar
) -> Chunk:
    """One ancestral step (Ho et al., 2020, eqs. 6 and 7) with the smaller variance.

    Args:
        clean: the data that the network believes in.
        noisy: the present sample.
        noise: a fresh draw; it does not enter the last step.
        alpha_bar: of the present sample.
        next_alpha_bar: of the result; 1 at the end.
    """
    alpha = alpha_bar / next_alpha_bar
    of_clean = jnp.sqrt(next_alpha_bar) * (1 - alpha) / (1 - alpha_bar)
    of_noisy = jnp.sqrt(alpha) * (1 - next_alpha_bar) / (1 - alpha_bar)
    variance = (1 - next_alpha_bar) / (1 - alpha_bar) * (1 - alpha)
    return of_clean * clean + of_noisy * noisy + jnp.sqrt(variance) * noise


def ddim_step(clean: Chunk, noise: Chunk, next_alpha_bar: Scalar) -> Chunk:
    """One deterministic step (Song et al., 2021, eq. 12 with eta = 0).

    Args:
        clean: the data that the network believes in.
        noise: the noise that it believes in.
        next_alpha_bar: of the result; 1 at the end.
    """
    return add_noise(clean, noise, next_alpha_bar)

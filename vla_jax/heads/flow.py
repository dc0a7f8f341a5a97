"""Flow-matching head: integrate a learned velocity from noise to an action chunk.

Time runs from 0 (noise) to 1 (action), so the velocity is simply `action - noise`.
openpi counts the other way: its `t` is `1 - time`.
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from vla_jax.heads.base import masked_mean
from vla_jax.heads.generative import GenerativeHead
from vla_jax.names import did_you_mean
from vla_jax.types import Context

PREDICTIONS = ("velocity", "sample")
INTEGRATORS = ("euler", "midpoint", "fixed_noise")


def _beta(rng: jax.Array, batch: int) -> jax.Array:
    """0.999 Beta(1.5, 1) + 0.001; the inverse of its distribution v^1.5 is exact."""
    return 0.999 * jax.random.uniform(rng, (batch,)) ** (1 / 1.5) + 0.001


def _stratified(rng: jax.Array, batch: int) -> jax.Array:
    """Evenly spread over the batch, shifted by one draw."""
    return (jax.random.uniform(rng) + jnp.arange(batch) / batch) % 1.0


# `(rng, batch) -> time [b]`.
TIME_LAWS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    "openpi": lambda rng, batch: 1 - _beta(rng, batch),  # mostly noise
    "literal": _beta,  # openpi's numbers taken for our time: mostly data
    "uniform": lambda rng, batch: jax.random.uniform(rng, (batch,)),
    "stratified": _stratified,
}


class FlowHead(GenerativeHead):
    """Predicts an action chunk by flow matching (Lipman et al., 2023).

    Integrators: "euler" makes one pass per step; "midpoint" makes two and is of second
    order; "fixed_noise" is X-VLA's: it keeps the noise of the start and mixes it with
    the chunk predicted last, so it needs the prediction "sample".

    Attributes:
        num_steps: steps of the integration.
        prediction: "velocity" as in pi0, or "sample": the clean chunk, as in X-VLA.
        integrator: one of `INTEGRATORS`.
        time_law: how training draws times, one of `TIME_LAWS`.
    """

    num_steps: int = 10
    prediction: str = "velocity"
    integrator: str = "euler"
    time_law: str = "openpi"

    @property
    def _noisy_end(self) -> float:
        return 0.0

    def _denoising(
        self, context: Context, action: jax.Array, mask: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        self._check()
        noise_rng, time_rng = jax.random.split(self.make_rng("noise"))
        noise = jax.random.normal(noise_rng, action.shape)
        time = TIME_LAWS[self.time_law](time_rng, action.shape[0])
        t = time[:, None, None]
        noisy = t * action + (1 - t) * noise
        prepared = self.denoiser.prepare(context)
        output = self._network(noisy, time, prepared, train=train)
        target = action if self.prediction == "sample" else action - noise
        error = jnp.square(output - target)
        return masked_mean(error, mask & ~self._is_gripper), output

    def _generate(
        self, context: Context, rngs: Key[Array, " b"]
    ) -> tuple[jax.Array, jax.Array]:
        self._check()
        prepared = self.denoiser.prepare(context)
        noise = self._draw(rngs)

        def network(chunk, time):
            time = jnp.full(chunk.shape[:1], time)
            return self._network(chunk, time, prepared, train=False)

        def displacement(output, chunk, time, duration):
            """How far the velocity at (chunk, time) leads in `duration`."""
            if self.prediction == "velocity":
                return duration * output
            # The share of the way is exactly 1 in the last step.
            return duration / (1 - time) * (output - chunk)

        def euler(carry, times):
            chunk, _ = carry
            now, after = times
            output = network(chunk, now)
            return (chunk + displacement(output, chunk, now, after - now), output), None

        def midpoint(carry, times):
            chunk, _ = carry
            now, after = times
            middle = (now + after) / 2
            output = network(chunk, now)
            halfway = chunk + displacement(output, chunk, now, middle - now)
            output = network(halfway, middle)
            step = displacement(output, halfway, middle, after - now)
            return (chunk + step, output), None

        def fixed_noise(carry, times):
            now, _ = times
            output = network(now * carry[1] + (1 - now) * noise, now)
            return (output, output), None

        steps = {"euler": euler, "midpoint": midpoint, "fixed_noise": fixed_noise}
        times = jnp.linspace(0.0, 1.0, self.num_steps + 1)
        carry = (noise, jnp.zeros_like(noise))
        times = (times[:-1], times[1:])
        return jax.lax.scan(steps[self.integrator], carry, times)[0]

    def _check(self) -> None:
        _require("prediction", self.prediction, PREDICTIONS)
        _require("time_law", self.time_law, TIME_LAWS)
        _require("integrator", self.integrator, INTEGRATORS)
        if self.integrator == "fixed_noise" and self.prediction != "sample":
            raise ValueError(
                "integrator 'fixed_noise' mixes the noise with a predicted chunk; it "
                f"needs prediction='sample', not {self.prediction!r}."
            )


def _require(field: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ValueError(f"Unknown {field} {name!r}; {did_you_mean(name, known)}")

"""A model and batches small enough to train in a test, with every feature of a step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vla_jax.types import Batch, Observation, Task


class Toy(nn.Module):
    """Predicts a chunk from proprio, with dropout, noise, and a running mean.

    Attributes:
        width: size of the trunk.
        noise: scale of the noise added to the target.
        dropout: share of features dropped in training.
    """

    width: int = 8
    noise: float = 0.1
    dropout: float = 0.1

    @nn.compact
    def loss(self, batch, *, train, weights=None):
        features = nn.Dense(self.width, name="trunk")(batch.observation.proprio[:, -1])
        features = nn.Dropout(self.dropout)(jnp.tanh(features), deterministic=not train)
        mean = self.variable("codebook", "mean", jnp.zeros, (self.width,))
        if train and not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * jnp.mean(features, 0)
        shape = batch.action.shape
        anchor = nn.Dense(shape[1] * shape[2], name="anchor")(features)
        residual = nn.Dense(shape[1] * shape[2], name="residual")(features)
        noise = self.noise * jax.random.normal(self.make_rng("noise"), shape)
        target = (batch.action + noise).reshape(shape[0], -1)
        rough = jnp.mean(jnp.square(anchor - target), -1)
        fine = jnp.mean(jnp.square(anchor + residual - target), -1)
        weights = {"anchor": 1.0, "residual": 1.0, **(weights or {})}
        loss = weights["anchor"] * rough + weights["residual"] * fine
        return loss, {"rough": rough, "fine": fine}


def make_batch(number: int, size: int = 4) -> Batch:
    """Batch `number` of an endless sequence."""
    rng = np.random.default_rng(number)
    proprio = rng.normal(size=(size, 1, 3)).astype(np.float32)
    action = np.stack([proprio[:, 0].sum(-1), proprio[:, 0, 0]], -1)
    return Batch(
        observation=Observation(
            image={"primary": np.zeros((size, 1, 2, 2, 3), np.uint8)},
            image_mask={"primary": np.ones((size, 1), bool)},
            proprio=proprio,
            frame_mask=np.ones((size, 1), bool),
        ),
        task=Task(
            tokens=np.zeros((size, 2), np.int32), token_mask=np.ones((size, 2), bool)
        ),
        action=np.repeat(action[:, None], 2, 1),
        action_mask=np.ones((size, 2, 2), bool),
        dataset=np.arange(size, dtype=np.int32) % 2,
    )


def no_augment(rng, batch):
    """Leaves the batch as it is."""
    del rng
    return batch

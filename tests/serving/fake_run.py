"""The checkpoint of a tiny policy with random weights, and its bundle."""

import functools

import flax.linen as nn
import jax

from tests.fake_batch import make_batch, policy_config
from tests.serving.test_agent import metadata
from vla_jax.data.text import Tokenizer
from vla_jax.heads.regression import RegressionHead
from vla_jax.models.build import build
from vla_jax.train.checkpoint import Checkpointer, write_description
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.step import init_state


class NoisyHead(nn.Module):
    """A regression head that adds noise, so that seeds can be seen."""

    chunk: int
    action_dim: int

    def setup(self):
        self.base = RegressionHead(self.chunk, self.action_dim, width=8)

    def loss(self, context, action, mask, *, train):
        return self.base.loss(context, action, mask, train=train)

    def sample(self, context, rng):
        mean = self.base.sample(context, rng)
        return mean + jax.random.normal(rng, mean.shape)


def write_run(folder, *, names=("robot",)):
    """Writes a run of 3 steps; the averaged parameters are the plain ones doubled."""
    config, variables = _model()
    state = init_state(
        make_optimizer(variables, 3, learning_rate=0.1), variables, ema=True
    )
    state = state.replace(ema_params=jax.tree.map(lambda x: 2 * x, state.params))
    with Checkpointer(folder / "checkpoints") as checkpoints:
        checkpoints.save(3, state, dict(step=3))
    content = metadata(1, names) | dict(text_length=8, vocab_size=1774)
    for entry in content["datasets"]:
        entry |= dict(weight=1.0, num_episodes=2, num_steps=9)
    write_description(
        folder / "checkpoints",
        config=dict(
            seed=5,
            model=config,
            train=dict(steps=4, ema_decay=0.9),
            evaluation=dict(execute=1, primary="topview", horizon=30),
        ),
        metadata=content,
        tokenizer=Tokenizer.from_file("").to_bytes(),
    )
    return folder


@functools.cache
def _model():
    """The model's config and its variables, drawn once."""
    config = policy_config(vocab_size=2048)
    config["head"] = dict(name="noisy", chunk=2, action_dim=3)
    model = build(config)
    init = jax.jit(lambda rng, b: model.init(rng, b, train=False, method="loss"))
    return config, init(jax.random.key(0), make_batch(length=8))

"""A flow transformer with soft prompts per robot, after X-VLA (Zheng et al., 2025).

What the encoders saw and a few learned tokens of the robot stand in one sequence with
the noisy actions, and plain bidirectional layers read all of it at every step of the
sampler. What differs between robots is learned in prompts and in the two linear layers
that actions pass; everything else is shared.
"""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from vla_jax.models.pre_norm import PreNormStack
from vla_jax.types import Context, Observation, Tokens

PROMPT = "prompt"


class PromptTrunk(nn.Module):
    """All token groups in one width, and the soft prompts of the robot.

    Without layers it is the input side of `JointDenoiser`, as in X-VLA. With layers,
    tokens and prompts read each other once, for denoisers that compute what they need
    of them only once for all steps, such as "dit".

    Attributes:
        width: token size.
        num_embodiments: robots that have prompts, one per data set in `data.datasets`.
        num_prompts: learned tokens of each robot.
        num_layers: bidirectional layers.
        num_heads, mlp_width, dropout, dtype, remat, attention_kernel: of these layers,
            see `PreNormStack`.
    """

    width: int = 1024
    num_embodiments: int = 1
    num_prompts: int = 32
    num_layers: int = 0
    num_heads: int = 16
    mlp_width: int = 4096
    dropout: float = 0.1
    dtype: str = "float32"
    remat: str = "none"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(self, context: Context, *, train: bool) -> Context:
        """Fills `context.tokens` `[b n d]`, the prompts last, and `context.readout`.

        The readouts are the prompts, `[b r d]`.

        Raises:
            ValueError: an observation that does not say which robot it is of, while
                there are several.
        """
        embodiment = pick_embodiment(context.observation, self.num_embodiments)
        parts = [self._project(name, group) for name, group in context.groups.items()]
        table = self.param(
            PROMPT,
            nn.initializers.normal(0.02),
            (self.num_embodiments, self.num_prompts, self.width),
        )
        prompt = table[embodiment]  # [b r d]
        parts.append(Tokens(prompt, jnp.ones(prompt.shape[:2], bool)))
        x = jnp.concatenate([part.values for part in parts], 1)
        real = jnp.concatenate([part.mask for part in parts], 1)
        if self.num_layers:
            x = PreNormStack(
                self.num_layers,
                self.num_heads,
                self.mlp_width,
                "gelu_tanh",
                1e-5,
                self.dropout,
                self.dtype,
                self.attention_kernel,
                self.remat,
                name="layers",
            )(x, real[:, None], train=train)[-1]
            x = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        tokens = Tokens(values=x, mask=real)
        return context.replace(tokens=tokens, readout=x[:, -self.num_prompts :])

    def _project(self, name: str, group: Tokens) -> Tokens:
        """Frames `[b t n e]` of a group as one run `[b t*n d]` with its positions."""
        b, t, n, _ = group.values.shape
        x = nn.Dense(self.width, name=f"{name}_project")(group.values)
        position = self.param(
            f"{name}_position", nn.initializers.normal(0.02), (t, n, self.width)
        )
        x = (x + position[None]).reshape(b, t * n, self.width)
        return Tokens(x, group.mask.reshape(b, t * n))


@struct.dataclass
class JointMemory:
    """What `JointDenoiser` reads of the context at every step."""

    tokens: Float[Array, "b n d"]
    mask: Bool[Array, "b n"]
    proprio: Float[Array, "b p"]
    embodiment: Int[Array, " b"]


class JointDenoiser(nn.Module):
    """Denoises a chunk in one sequence with the trunk's tokens.

    An action token is made of the noisy action, proprio and the time by a linear layer
    of the robot's own, and becomes an action by another. The untrained output is
    exactly zero.

    Attributes:
        time: embedding of the time, a module `time [b] -> [b d]`.
        chunk: number of actions.
        action_dim: size of one action.
        num_embodiments: robots with layers of their own, as in `PromptTrunk`.
        width: token size, that of the trunk.
        num_layers: depth.
        num_heads: attention heads.
        mlp_width: hidden units of each layer's perceptron.
        dropout: rate on residual branches.
        hidden_proprio: dimensions of proprio that are shown as zero: those that give
            the gripper away.
        dtype: compute precision of the layers; parameters stay float32.
        remat, attention_kernel: how they are computed, see `PreNormStack`.
    """

    time: nn.Module
    chunk: int
    action_dim: int
    num_embodiments: int = 1
    width: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_width: int = 4096
    dropout: float = 0.1
    hidden_proprio: tuple[int, ...] = ()
    dtype: str = "float32"
    remat: str = "none"
    attention_kernel: str = "plain"

    def prepare(self, context: Context) -> JointMemory:
        """Tokens, the present proprio and the robot's number.

        Raises:
            ValueError: tokens of another width, or a hidden dimension that proprio does
                not have.
        """
        tokens, observation = context.tokens, context.observation
        if tokens.values.shape[-1] != self.width:
            raise ValueError(
                f"The trunk's tokens have {tokens.values.shape[-1]} numbers, the "
                f"denoiser's {self.width}; make both widths the same."
            )
        proprio = observation.proprio[:, -1]
        unknown = [d for d in self.hidden_proprio if not 0 <= d < proprio.shape[-1]]
        if unknown:
            raise ValueError(
                f"hidden_proprio has {unknown}, but proprio has "
                f"{proprio.shape[-1]} dimensions."
            )
        for dim in self.hidden_proprio:
            proprio = proprio.at[:, dim].set(0.0)
        embodiment = pick_embodiment(observation, self.num_embodiments)
        return JointMemory(tokens.values, tokens.mask, proprio, embodiment)

    @nn.compact
    def __call__(
        self,
        noisy: Float[Array, "b c a"],
        time: Float[Array, " b"],
        prepared: JointMemory,
        *,
        train: bool,
    ) -> Float[Array, "b c a"]:
        steps = noisy.shape[:2]
        rest = jnp.concatenate([prepared.proprio, self.time(time)], -1)[:, None]
        rest = jnp.broadcast_to(rest, (*steps, rest.shape[-1]))
        x = EmbodimentDense(self.num_embodiments, self.width, name="action_in")(
            jnp.concatenate([noisy, rest], -1), prepared.embodiment
        )
        position = self.param(
            "position", nn.initializers.normal(0.02), (self.chunk, self.width)
        )
        x = jnp.concatenate([x + position[None], prepared.tokens], 1)
        real = jnp.concatenate([jnp.ones(steps, bool), prepared.mask], 1)
        x = PreNormStack(
            self.num_layers,
            self.num_heads,
            self.mlp_width,
            "gelu_tanh",
            1e-5,
            self.dropout,
            self.dtype,
            self.attention_kernel,
            self.remat,
            name="layers",
        )(x, real[:, None], train=train)[-1]
        x = nn.LayerNorm(epsilon=1e-5, name="norm")(x[:, : self.chunk])
        return EmbodimentDense(
            self.num_embodiments, self.action_dim, zero_init=True, name="action_out"
        )(x, prepared.embodiment)


class EmbodimentDense(nn.Module):
    """A linear layer with a matrix for every robot.

    Attributes:
        num_embodiments: number of matrices.
        width: size of the output.
        zero_init: whether the untrained output is exactly zero.
    """

    num_embodiments: int
    width: int
    zero_init: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b c e"], embodiment: Int[Array, " b"]
    ) -> Float[Array, "b c d"]:
        zeros = nn.initializers.zeros
        lecun = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=(0,))
        kernel = self.param(
            "kernel",
            zeros if self.zero_init else lecun,
            (self.num_embodiments, x.shape[-1], self.width),
        )
        bias = self.param("bias", zeros, (self.num_embodiments, self.width))
        x = jnp.einsum("bce,bed->bcd", x, kernel[embodiment])
        return x + bias[embodiment][:, None]


def pick_embodiment(observation: Observation, count: int) -> Int[Array, " b"]:
    """The robot's number of every example.

    Raises:
        ValueError: there are several robots, and the observation does not say which.
    """
    if observation.embodiment is not None and count > 1:
        return observation.embodiment
    if count > 1:
        raise ValueError(
            f"The policy has prompts for {count} robots, but the observation does not "
            "say which it is of: set `Observation.embodiment`."
        )
    return jnp.zeros(observation.proprio.shape[0], jnp.int32)

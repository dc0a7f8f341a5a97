import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.heads.oracle import make_context
from vla_jax.heads.flow import FlowHead
from vla_jax.models.dit import DiT
from vla_jax.models.mlp_denoiser import MLPDenoiser
from vla_jax.models.time_embedding import FourierTime, SinusoidalTime
from vla_jax.models.unet import UNet

CHUNK, ACTION = 4, 3
TIME = SinusoidalTime(8)
NETWORKS = {
    "mlp": MLPDenoiser(FourierTime(8), width=8, hidden=16),
    "dit": DiT(TIME, CHUNK, ACTION, width=8, num_layers=1, num_heads=2, mlp_width=16),
    "unet": UNet(TIME, channels=(4, 8), kernel=3, num_groups=2),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """A denoiser whose every parameter is random: zeros would hide mistakes."""
    module = NETWORKS[request.param]
    inputs = (make_context(), noisy(), jnp.zeros(1))
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), *inputs, method=denoise)
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), shapes
    )
    call = jax.jit(lambda *inputs: module.apply(variables, *inputs, method=denoise))
    return request.param, call, variables


def denoise(module, context, noisy, time):
    return module(noisy, time, module.prepare(context), train=False)


def noisy(seed=0):
    return jax.random.normal(jax.random.key(seed), (1, CHUNK, ACTION))


def test_every_input_changes_the_prediction(network):
    context, time = make_context(), jnp.array([0.3])
    base = network[1](context, noisy(), time)
    assert base.shape == (1, CHUNK, ACTION)
    changed = [
        network[1](context, noisy(1), time),
        network[1](context, noisy(), jnp.array([0.7])),
    ]
    if network[0] == "dit":
        values = context.tokens.values.at[:, 0].add(jnp.arange(4.0))
        other = context.replace(tokens=context.tokens.replace(values=values))
    else:
        other = context.replace(readout=context.readout + jnp.arange(4.0)[None, None])
    changed.append(network[1](other, noisy(), time))
    for other in changed:
        assert np.abs(other - base).max() > 1e-4


def test_masked_tokens_do_not_change_the_prediction(network):
    context, time = make_context(), jnp.array([0.3])
    values = context.tokens.values.at[:, -1].set(7.0)
    other = context.replace(tokens=context.tokens.replace(values=values))
    np.testing.assert_array_equal(
        network[1](context, noisy(), time), network[1](other, noisy(), time)
    )


def test_a_chunk_is_sampled(network):
    name, _, variables = network
    head = FlowHead(NETWORKS[name], CHUNK, ACTION, num_steps=3)
    variables = {"params": {"denoiser": variables["params"]}}
    sample = jax.jit(lambda v, *inputs: head.apply(v, *inputs, method="sample"))
    chunk = sample(variables, make_context(2), jax.random.key(0))
    assert chunk.shape == (2, CHUNK, ACTION) and np.isfinite(chunk).all()


def test_keys_and_values_are_computed_once_for_all_steps():
    context = make_context(tokens=7, width=5)
    head = FlowHead(NETWORKS["dit"], CHUNK, ACTION, num_steps=3)
    action = jnp.zeros((1, CHUNK, ACTION))
    keys = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    inputs = (context, action, action == 0)
    shapes = jax.eval_shape(lambda: head.init(keys, *inputs, train=True, method="loss"))
    traced = jax.make_jaxpr(
        lambda v: head.apply(v, context, jax.random.key(0), method="sample")
    )(shapes)

    def products(jaxpr):
        found = []
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                found.append(equation.invars[0].aval.shape)
            for value in equation.params.values():
                if hasattr(value, "jaxpr"):
                    found += products(value.jaxpr)
        return found

    (loop,) = [e for e in traced.jaxpr.eqns if e.primitive.name == "scan"]
    assert (1, 7, 5) in products(traced.jaxpr)
    assert (1, 7, 5) not in products(loop.params["jaxpr"].jaxpr)


def test_untrained_transformer_predicts_exactly_zero():
    inputs = (make_context(), noisy(), jnp.array([0.3]))
    untrained = jax.jit(
        lambda rng: NETWORKS["dit"].init_with_output(rng, *inputs, method=denoise)[0]
    )
    np.testing.assert_array_equal(untrained(jax.random.key(0)), 0)


def test_unet_refuses_a_chunk_that_it_cannot_halve():
    with pytest.raises(ValueError, match="divides by 2, not 3"):
        NETWORKS["unet"].init(
            jax.random.key(0),
            jnp.zeros((1, 3, 2)),
            jnp.zeros(1),
            jnp.zeros((1, 4)),
            train=False,
        )


def test_sines_and_cosines_of_two_periods():
    embedding = SinusoidalTime(4, min_period=1.0, max_period=4.0)(jnp.array([0.5, 1.0]))
    expected = [[0, 2**-0.5, -1, 2**-0.5], [0, 1, 1, 0]]
    np.testing.assert_allclose(embedding, expected, atol=1e-6)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="width is 3, not even"):
        SinusoidalTime(3)(jnp.zeros(1))

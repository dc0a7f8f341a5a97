"""Peers in PyTorch have the parameters of our policies and learn."""

import functools

import jax
import pytest

pytest.importorskip("torch")
from vla_jax.benchmark import synthetic
from vla_jax.benchmark.configs import load_config
from vla_jax.benchmark.torch_peer import make_model, open_peer
from vla_jax.models.build import build_model
from vla_jax.train.step import init_variables
from vla_jax.types import batch_from_dict


@pytest.mark.parametrize(
    "name", ["act.py:small", "quickstart.py:debug", "vit.py:debug"]
)
def test_a_peer_has_as_many_parameters(name):
    config = load_config(f"configs/{name}")
    metadata = synthetic.make_metadata(config["data"])
    batch = synthetic.make_batch(config["data"], metadata, batch_size=1)
    shapes = jax.eval_shape(
        functools.partial(init_variables, build_model(config["model"], metadata), {}),
        batch_from_dict(batch),
        jax.random.key(0),
    )
    ours = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert sum(p.numel() for p in make_model(config, metadata).parameters()) == ours


@pytest.mark.parametrize("part", ["step", "inference"])
def test_a_peer_runs_on_made_up_data(part):
    peer = open_peer(part, load_config("configs/act.py:debug"), compiled=False)
    peer.run(2)
    assert peer.facts["images"] == (2 if part == "step" else 1)


def test_a_policy_without_a_peer_is_refused():
    with pytest.raises(ValueError, match="no peer"):
        open_peer("step", load_config("configs/msact.py:debug"), compiled=False)

"""A run with adapters leaves the library without having to be merged."""

import numpy as np

from tests.serving.fake_run import write_run
from tests.serving.test_agent import observe
from vla_jax.serving.export import export_policy
from vla_jax.serving.policy import Policy
from vla_jax.train.merge import merge_checkpoint


def test_a_bundle_of_adapters_acts_like_the_run_and_like_the_merged_run(tmp_path):
    run = write_run(tmp_path / "run", lora=dict(rank=2))
    export_policy(run, tmp_path / "policy")
    merge_checkpoint(run, tmp_path / "merged")
    actions = [
        policy.infer(observe(2), "open it", seed=7)
        for policy in (
            Policy.from_checkpoint(run),
            Policy.load(tmp_path / "policy"),
            Policy.load(tmp_path / "policy", program="live"),
            Policy.from_checkpoint(tmp_path / "merged"),
        )
    ]
    for other in actions[1:]:
        np.testing.assert_allclose(other, actions[0], rtol=1e-4, atol=1e-5)
    plain = Policy.from_checkpoint(write_run(tmp_path / "plain"))
    difference = plain.infer(observe(2), "open it", seed=7) - actions[0]
    assert np.abs(difference).max() > 1e-3

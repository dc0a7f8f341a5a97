"""Pictures of residuals: what they count, and that each episode gets one."""

import json

import jax
import numpy as np
import pytest

from tests import fake
from tests.fake_batch import policy_config
from vla_jax.data.source import open_source
from vla_jax.models.build import build_model
from vla_jax.visualize import explained as module
from vla_jax.visualize.explained import Explained
from vla_jax.visualize.residuals import format_report, summarize, visualize_residuals

CHUNK, ACTION = 2, 4


def head(**fields):
    part = dict(
        name="regression", chunk=CHUNK, action_dim=ACTION, width=4, gripper_dims=[3]
    )
    return dict(name="hierarchical", anchor=part, refine=part, **fields)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder on a tiny data set, whose weights are random."""
    data = fake.data_config(fake.write_dataset(tmp_path), chunk=CHUNK)
    model = policy_config(chunk=CHUNK, action_dim=ACTION, vocab_size=2048)
    model |= dict(image={}, tokens={}, head=head())
    model["text"]["num_layers"] = model["trunk"]["num_layers"] = 0
    data["cameras"] = ()
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(data=data, model=model)))

    def restore(folder, step):
        assert step == 7
        source = open_source(data)
        batch = module.batch_from_dict(
            module.make_batch(source, np.zeros(1, np.int32), np.zeros(1, np.int64))
        )
        built = build_model(model, source.metadata())
        shapes = jax.eval_shape(
            lambda b: built.init(jax.random.key(0), b, train=False, method="loss"),
            batch,
        )
        rng = np.random.default_rng(0)
        return jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), shapes)

    monkeypatch.setattr(module, "restore_variables", restore)
    return folder.parent


def test_every_episode_gets_a_picture_and_every_split_its_numbers(run, tmp_path):
    out = tmp_path / "pictures"
    report = visualize_residuals(run, out, episodes=1, every=2, step=7)
    assert json.loads((out / "residuals.json").read_text()) == report
    assert sorted(path.name.partition("-")[0] for path in out.glob("*.png")) == [
        "train",
        "validation",
    ]
    assert report["train"]["chunks"] == 2 and report["validation"]["chunks"] == 1
    text = format_report(report).splitlines()
    assert text[0].split() == ["train", "validation"]
    assert text[1].split() == ["chunks", "2", "1"]


def test_a_head_without_parts_is_refused(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "config.json").write_text('{"model": {"head": {"name": "flow"}}}')
    with pytest.raises(ValueError, match="'flow' head, which leaves no residual"):
        visualize_residuals(tmp_path, tmp_path / "out")


def test_norms_traces_and_flips_by_hand():
    shape = (2, 1, 2)
    action = np.float32([[[3.0, 1.0]], [[1.0, 1.0]]])
    anchor = np.float32([[[2.0, 0.4]], [[1.0, 0.6]]])
    final = np.float32([[[2.5, 0.6]], [[1.0, 0.3]]])
    episode = Explained(
        name="one",
        dataset=0,
        step=np.arange(2),
        row=np.arange(2),
        image={},
        action=action,
        anchor=anchor,
        residual=final - anchor,
        final=final,
        mask=np.ones(shape, bool),
    )
    expected = dict(
        chunks=2,
        action_norm=2.0,
        action_trace=2.0,
        anchor_residual_norm=0.5,
        anchor_residual_trace=0.5,
        final_residual_norm=0.25,
        final_residual_trace=0.125,
        gripper_wrong_to_right=0.5,
        gripper_right_to_wrong=0.5,
        anchor_gripper_error=0.5,
        gripper_error=0.5,
    )
    assert summarize([episode], (1,)) == pytest.approx(expected)

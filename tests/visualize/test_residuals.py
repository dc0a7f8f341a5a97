"""Pictures of residuals: what they count, and that each episode gets one."""

import json

import jax
import numpy as np
import pytest

from tests import fake
from tests.fake_batch import policy_config
from vla_jax.data.batch import make_batch
from vla_jax.data.source import open_source
from vla_jax.data.write import RLDSWriter, Tensor
from vla_jax.models.build import build_model
from vla_jax.types import batch_from_dict
from vla_jax.visualize import explained as module
from vla_jax.visualize import paths, residuals
from vla_jax.visualize.explained import Explained
from vla_jax.visualize.residuals import format_report, summarize, visualize_residuals

CHUNK, ACTION = 2, 4
INTRINSICS = np.float32([[8, 0, 4], [0, 8, 4], [0, 0, 1]])  # of 8 by 8 pixels


def head(**fields):
    part = dict(
        name="regression", chunk=CHUNK, action_dim=ACTION, width=4, gripper_dims=[3]
    )
    return dict(name="hierarchical", anchor=part, refine=part, **fields)


def write_seen(path):
    """A data set whose hand moves as told, 2 m before a camera that looks along z."""
    features = fake.features()
    for key, size in (("intrinsics", 3), ("extrinsics", 4)):
        features["observation"][f"image_{key}"] = Tensor(np.float32, (size, size))
    with RLDSWriter(path, "seen", features, fake.METADATA) as writer:
        for number, split in enumerate(("train", "train", "val")):
            steps, metadata = fake.episode(number, 6)
            observation, moves = steps["observation"], steps["action"][:, :3]
            observation["state"][:, :3] = np.cumsum(moves, 0) - moves + [0, 0, 2]
            observation["image_intrinsics"] = np.stack([INTRINSICS] * 6)
            observation["image_extrinsics"] = np.stack([np.eye(4, dtype="f4")] * 6)
            writer.write(split, steps, metadata)
    return writer.folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder on a tiny data set, whose weights are random."""
    data = fake.data_config(write_seen(tmp_path), chunk=CHUNK)
    model = policy_config(chunk=CHUNK, action_dim=ACTION, vocab_size=2048)
    model["head"] = head()
    model["text"]["num_layers"] = model["trunk"]["num_layers"] = 0
    data["cameras"] = ("primary",)
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(data=data, model=model)))

    def restore(folder, step):
        assert step == 7
        source = open_source(data)
        batch = batch_from_dict(
            make_batch(source, np.zeros(1, np.int32), np.zeros(1, np.int64))
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
    assert report["train"]["chunks"] == 3 and report["validation"]["chunks"] == 3
    text = format_report(report).splitlines()
    assert text[0].split() == ["train", "validation"]
    assert text[1].split() == ["chunks", "3", "3"]


def test_the_ways_of_the_hand_are_drawn_over_the_pictures(run, tmp_path, monkeypatch):
    ways = []

    def project(*arguments):
        ways.append(paths.project(*arguments))
        return ways[-1]

    monkeypatch.setattr(residuals, "project", project)
    visualize_residuals(run, tmp_path / "pictures", episodes=1, every=3, step=7)
    # Two pictures an episode with three ways each: recorded, anchor and refined.
    assert [len(way) for way in ways] == [3] * 12
    recorded, anchor, refined = ways[:3]
    # Episode 0 starts at 0, 0, 2 m and moves by (0, 0, 0), then by (0, 1, 2) cm.
    expected = [[4, 4], [4, 4], [4, 4 + 8 * 0.01 / 2.02]]
    np.testing.assert_allclose(recorded, expected, atol=1e-3)
    np.testing.assert_allclose([anchor[0], refined[0]], [[4, 4]] * 2, atol=1e-3)
    assert np.abs(anchor[1:] - recorded[1:]).max() > 0.01


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


def test_the_part_of_a_picture_around_a_way_stays_within_it():
    nan = np.full((1, 2), np.nan)
    middle = np.array([[50.0, 40.0], [60.0, 40.0]])
    assert residuals._window(np.concatenate([middle, nan]), 100, 80) == (39, 24, 32)
    corner = np.array([[-3.0, 79.0], [2.0, 85.0]])
    assert residuals._window(corner, 100, 80) == (0, 48, 32)
    assert residuals._window(middle * [9, 1], 100, 80) == (20, 0, 80)
    assert residuals._window(nan, 100, 80) == (0, 0, 80)

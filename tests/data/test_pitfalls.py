"""Mistakes that other data pipelines for robots have made, and this one must not.

Each test is of the fact whose opposite was found elsewhere: masks that turn on late, an
instruction that is never drawn, statistics of held-out data, and so on.
"""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import fake, fake_oxe, fake_robot
from vla_jax.data.batch import make_batch
from vla_jax.data.oxe import DATASETS
from vla_jax.data.oxe.gripper import opening_from_changes
from vla_jax.data.source import open_source
from vla_jax.data.statistics import Statistics, Streaming
from vla_jax.data.statistics_merge import merge_statistics
from vla_jax.data.windows import window_and_chunk
from vla_jax.data.write import Image, RLDSWriter, Tensor
from vla_jax.heads.regression import RegressionHead
from vla_jax.types import Batch, Context

PLAIN = {"action": "none", "proprio": "none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake.write_dataset(tmp_path_factory.mktemp("data"), lengths=(3, 5, 4))


@pytest.mark.parametrize("window", [1, 2])
def test_no_action_past_the_end_of_an_episode_is_marked_real(window):
    step, length = np.arange(6), np.full(6, 6)
    _, _, future, real = window_and_chunk(step, length, window=window, chunk=4)
    # Of steps 3, 4 and 5 one, two and three of four actions lie past the end.
    assert real.sum(axis=1).tolist() == [4, 4, 4, 3, 2, 1]
    assert (~real).sum() == 6 and (future[~real] == 5).all()


def test_every_step_starts_a_sample_even_where_the_chunk_does_not_fit(folder):
    config = fake.data_config(folder, window=2, chunk=16, normalization=PLAIN)
    source = open_source(config)
    assert source.sizes("train") == (12,)  # no episode is as long as the chunk
    batch = make_batch(source, np.zeros(12, np.int32), np.arange(12))
    assert batch["action_mask"][:, 0].all()
    real = batch["action_mask"][..., 0].sum(axis=1).tolist()
    assert real == [3, 2, 1, 5, 4, 3, 2, 1, 4, 3, 2, 1]


@pytest.mark.parametrize("count", [2, 3])
def test_the_last_instruction_is_drawn_as_often_as_the_first(tmp_path, count):
    texts = ["red", "green", "blue"][:count]

    def standardize(raw):
        return {
            "proprio": raw.arrays["steps/action"],
            "action": raw.arrays["steps/action"],
            "language": texts,
        }

    features = {"image": Image(8, 8), "action": Tensor(np.float32, (2,))}
    with RLDSWriter(tmp_path, "robot", features) as writer:
        images = np.zeros((300, 8, 8, 3), np.uint8)
        writer.write("train", {"image": images, "action": np.ones((300, 2), "f4")})
    spec = dataclasses.replace(
        DATASETS["bridge_orig"],
        name="robot",
        cameras={"primary": "steps/image"},
        action=("relative", "relative"),
        standardize=standardize,
        holdout=0.0,
    )
    index = fake.open_index(writer.folder, spec)
    source = dataclasses.replace(
        open_source(fake.data_config(fake.write_dataset(tmp_path / "other"))),
        indexes=(index,),
        cameras=("primary",),
        normalization=PLAIN,
    )
    batch = make_batch(source, np.zeros(300, np.int32), np.arange(300), seed=1)
    tokens, _ = source.tokenizer.encode(texts, source.text_length)
    drawn = [np.all(batch["task"]["tokens"] == row, axis=1).sum() for row in tokens]
    assert sum(drawn) == 300 and min(drawn) > 300 / count * 0.8


def test_a_gripper_that_opens_first_was_closed_and_one_that_closes_was_open():
    # 1 closes, -1 opens.
    assert opening_from_changes(np.array([0, 0, -1]))[:, 0].tolist() == [0, 0, 1]
    assert opening_from_changes(np.array([0, 0, 1]))[:, 0].tolist() == [1, 1, 0]


def test_merging_statistics_keeps_quantiles_and_takes_data_sets_without_proprio():
    parts = []
    for low in (0, 100):
        streaming = Streaming(1)
        streaming.update(np.arange(low, low + 101, dtype=np.float64)[:, None])
        parts.append(streaming)
    merged = merge_statistics(parts, [1, 1])
    assert 1 <= merged.q01[0] <= 3 and 197 <= merged.q99[0] <= 199
    again = Statistics.from_json(json.loads(json.dumps(merged.to_json())))
    assert again.q01[0] == merged.q01[0]
    empty = [Streaming(0), Streaming(0)]
    for streaming in empty:
        streaming.update(np.zeros((5, 0)))
    assert merge_statistics(empty, [1, 1]).q01.shape == (0,)


@pytest.mark.parametrize(
    "name", ["robo_net", "utokyo_xarm_pick_and_place_converted_externally_to_rlds"]
)
def test_entries_that_others_broke_give_a_row_of_proprio_per_step(tmp_path, name):
    if name == "robo_net":
        observation = {"image": Image(8, 8), "image1": Image(8, 8)}
        features = fake_oxe.in_one(5, observation | {"state": fake_oxe.numbers(5)})
        state, width = "observation/state", 7
    else:
        observation = {key: Image(8, 8) for key in ("image", "image2", "hand_image")}
        observation |= {"end_effector_pose": fake_oxe.numbers(6)}
        features = fake_oxe.in_one(7, observation)
        state, width = "observation/end_effector_pose", 6
    columns = 5 if name == "robo_net" else 6
    steps = {state: fake_oxe.counting(3, columns), "language_instruction": ["go"] * 3}
    folder = fake_oxe.write(tmp_path, name, features, steps)
    proprio = fake.open_index(folder, DATASETS[name]).proprio
    assert proprio.shape == (3, width)
    np.testing.assert_array_equal(proprio[:, :4], fake_oxe.counting(3, 4))


def test_statistics_are_of_the_training_split_alone(tmp_path):
    with RLDSWriter(tmp_path, "robot", fake.features(), fake.METADATA) as writer:
        for split, scale in (("train", 1.0), ("val", 1000.0)):
            steps, metadata = fake.episode(0, 4)
            steps["observation"]["state"] = np.full((4, 4), scale, np.float32)
            writer.write(split, steps, metadata)
    index = fake.open_index(writer.folder)
    assert index.statistics["proprio"].max.tolist() == [1.0] * 4
    assert index.statistics["proprio"].count == 4


def test_a_goal_holds_only_the_cameras_that_were_asked_for(tmp_path):
    labels = ({"name": "goal_image", "cameras": ("primary",)},)
    robot = fake_robot.write_robot(tmp_path)
    datasets = ({"path": str(robot), "spec": fake_robot.NAME},)
    source = open_source(
        fake.data_config(
            datasets=datasets, labels=labels, cameras=("primary",), depth=("primary",)
        )
    )
    batch = make_batch(source, np.zeros(2, np.int32), np.arange(2))
    goal = batch["labels"]["goal_image"]
    assert list(goal["image"]) == ["primary"]
    assert not {"depth", "proprio", "camera"} & set(goal)
    assert set(batch["task"]) == {"tokens", "token_mask"}


def test_sizes_are_counted_and_one_data_set_does_not_change_another(tmp_path):
    short = fake.write_dataset(tmp_path / "a", lengths=(3, 5), val_lengths=(2,))
    long = fake.write_dataset(tmp_path / "b", lengths=(4, 9), seed=1)
    alone = [
        open_source(fake.data_config(f, normalization=PLAIN)) for f in (short, long)
    ]
    both = open_source(fake.data_config(short, long, normalization=PLAIN))
    assert both.sizes("train") == (8, 13)
    for number, source in enumerate(alone):
        count = source.sizes("train")[0]
        one = make_batch(source, np.zeros(count, np.int32), np.arange(count))
        two = make_batch(both, np.full(count, number, np.int32), np.arange(count))
        jax.tree.map(
            np.testing.assert_array_equal,
            {k: v for k, v in one.items() if k != "dataset"},
            {k: v for k, v in two.items() if k != "dataset"},
        )


def test_the_command_line_does_not_choose_chunks_or_normalization(folder, monkeypatch):
    config = fake.data_config(folder, chunk=3)
    expected = open_source(config).metadata()
    monkeypatch.setattr(sys, "argv", ["train.py", "--data=libero_aloha_bridge"])
    assert open_source(config).metadata() == expected


def test_a_loss_without_its_mask_is_an_error():
    head = RegressionHead(chunk=1, action_dim=2, width=4)
    context = Context(observation=None, task=None, readout=jnp.ones((1, 2, 4)))
    rng, action = jax.random.key(0), jnp.ones((1, 1, 2))
    with pytest.raises(TypeError, match="mask"):
        head.init(rng, context, action, train=True, method="loss")
    with pytest.raises(TypeError, match="action_mask"):
        Batch(observation=None, task=None, action=action)
    with pytest.raises(TypeError, match="action_is_pad"):
        Batch(None, None, action=action, action_mask=None, action_is_pad=None)


def test_padded_dimensions_change_neither_the_loss_nor_its_gradient(folder, tmp_path):
    features = fake_oxe.in_one(
        5, {"image": Image(8, 8), "image1": Image(8, 8), "state": fake_oxe.numbers(5)}
    )
    steps = {
        "action": fake_oxe.counting(3, 5) / 1000,
        "language_instruction": ["go"] * 3,
    }
    other = fake_oxe.write(tmp_path, "robo_net", features, steps)
    datasets = (
        {"path": str(folder), "spec": "metaworld"},
        {"path": str(other), "spec": "robo_net"},
    )
    config = fake.data_config(datasets=datasets, normalization=PLAIN)
    source = open_source({**config, "cameras": ("primary",)})
    batch = make_batch(source, np.zeros(2, np.int32), np.array([0, 2]))
    action, mask = jnp.asarray(batch["action"]), jnp.asarray(batch["action_mask"])
    assert action.shape == (2, 3, 7) and not mask[..., 4:].any()
    head = RegressionHead(chunk=3, action_dim=7, width=4)
    context = Context(observation=None, task=None, readout=jnp.ones((2, 2, 4)))
    variables = head.init(
        jax.random.key(0), context, action, mask, train=True, method="loss"
    )

    def loss(variables, action):
        values, _ = head.apply(
            variables, context, action, mask, train=True, method="loss"
        )
        return values.sum()

    changed = jnp.where(mask, action, 1e6)
    one, two = (jax.value_and_grad(loss)(variables, a) for a in (action, changed))
    jax.tree.map(np.testing.assert_array_equal, one, two)

"""One batch, value by value: windows, chunks, masks, pixels, tokens."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests import fake
from vla_jax.data.batch import make_batch
from vla_jax.data.image import decode
from vla_jax.data.source import open_source
from vla_jax.data.statistics import unnormalize
from vla_jax.data.write import Image, RLDSWriter, Tensor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake.write_dataset(tmp_path_factory.mktemp("data"), lengths=(3, 5, 4))


@pytest.fixture(scope="module")
def source(folder):
    return make_source(folder)


def make_source(*folders, **changes):
    plain = {"action": "none", "proprio": "none"}
    config = fake.data_config(*folders, normalization=plain)
    return open_source({**config, **changes})


def samples(source, count, dataset=0, **options):
    rows = np.full(count, dataset, np.int32)
    return make_batch(source, rows, np.arange(count), **options)


def test_every_step_of_every_episode_starts_a_sample(source):
    batch = samples(source, 12)
    places = list(zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True))
    assert len(set(places)) == 12
    lengths = source.indexes[0].num_episode_steps
    for episode, step in places:
        assert step < lengths[episode]


def test_training_never_sees_validation_episodes(source):
    assert source.sizes("train") == (12,) and source.sizes("validation") == (2,)
    train = set(samples(source, 12)["episode"].tolist())
    held_out = set(samples(source, 2, split="validation")["episode"].tolist())
    assert len(train) == 3 and len(held_out) == 1 and not train & held_out


def test_actions_are_the_future_and_continue_past_the_end(source):
    batch = samples(source, 12)
    for row in range(12):
        episode, step = int(batch["episode"][row]), int(batch["step"][row])
        length = (3, 5, 4)[episode]
        for k in range(3):
            real = step + k < length
            expected = fake.action(episode, min(step + k, length - 1))
            expected[3] = (1 - expected[3]) / 2  # 1 = open
            if not real:
                expected[:3] = 0  # relative dimensions; the gripper stays as it was
            np.testing.assert_allclose(batch["action"][row, k], expected, atol=1e-6)
            np.testing.assert_array_equal(batch["action_mask"][row, k], [real] * 4)


def test_proprio_is_the_past_and_repeats_the_first_frame(source):
    batch, index = samples(source, 12), source.indexes[0]
    for row in range(12):
        first, step = index.first_step[batch["episode"][row]], batch["step"][row]
        for i, past in enumerate((step - 1, step)):
            expected = index.proprio[first + max(past, 0)]
            np.testing.assert_array_equal(
                batch["observation"]["proprio"][row, i], expected
            )
            assert batch["observation"]["frame_mask"][row, i] == (past >= 0)


def test_images_are_those_of_the_window(source):
    batch, index = samples(source, 12), source.indexes[0]
    for camera in ("primary", "wrist"):
        image = batch["observation"]["image"][camera]
        assert image.dtype == np.uint8 and image.shape == (12, 2, 8, 8, 3)
        for row in range(12):
            first, step = index.first_step[batch["episode"][row]], batch["step"][row]
            for i, past in enumerate((step - 1, step)):
                data = index.read_image(camera, int(first + max(past, 0)))
                np.testing.assert_array_equal(image[row, i], decode(data))
                color = fake.image(int(batch["episode"][row]), max(past, 0), camera)
                # JPEG changes colors a little; the next step's differ by 24.
                assert np.all(np.abs(image[row, i].astype(int) - color) < 12)
                mask = batch["observation"]["image_mask"][camera]
                assert mask[row, i] == (past >= 0)


def test_rows_carry_the_instruction_of_their_episode(source):
    batch, index = samples(source, 12), source.indexes[0]
    texts = source.tokenizer.decode(batch["task"]["tokens"])
    for row, text in enumerate(texts):
        first = index.first_step[batch["episode"][row]]
        assert text == index.instructions(int(first))[0]
    expected = batch["task"]["tokens"] != 0
    np.testing.assert_array_equal(batch["task"]["token_mask"], expected)


def test_normalized_actions_come_back_and_the_gripper_is_left_alone(folder, source):
    normalized = make_source(
        folder, normalization={"action": "quantile", "proprio": "mean_std"}
    )
    plain, batch = samples(source, 12), samples(normalized, 12)
    assert not np.allclose(plain["action"], batch["action"])
    kinds = np.array([True, True, True, False])
    statistics = normalized.statistics[0]["action"]
    np.testing.assert_allclose(
        unnormalize(batch["action"], statistics, "quantile", mask=kinds),
        plain["action"],
        atol=1e-5,
    )
    np.testing.assert_array_equal(batch["action"][..., 3], plain["action"][..., 3])
    proprio = batch["observation"]["proprio"]
    assert proprio.dtype == batch["action"].dtype == np.float32
    assert abs(proprio[:, -1].mean()) < 1e-5


def test_images_of_another_size_are_resized(folder):
    batch = samples(make_source(folder, image_size=(6, 10)), 3)
    assert batch["observation"]["image"]["wrist"].shape == (3, 2, 6, 10, 3)


def test_a_thread_pool_makes_the_same_batch(source):
    with ThreadPoolExecutor(3) as pool:
        parallel = samples(source, 12, run=pool.map)
    serial = samples(source, 12)
    for camera in ("primary", "wrist"):
        np.testing.assert_array_equal(
            parallel["observation"]["image"][camera],
            serial["observation"]["image"][camera],
        )


MIXED = """
import numpy as np
from vla_jax.data.standardize import DatasetSpec

def standardize(raw):
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": raw.arrays["steps/action"],
        "language": ["grasp the cup", "take the cup", "pick up the cup"],
    }

ARM = DatasetSpec(
    name="arm",
    cameras={"primary": "steps/observation/image"},
    action=("absolute", "gripper"),
    control_hz=5.0,
    standardize=standardize,
)
SILENT = DatasetSpec(
    name="silent",
    cameras={"primary": "steps/observation/image"},
    action=("absolute", "gripper"),
    control_hz=5.0,
    standardize=lambda raw: {**standardize(raw), "language": []},
)
"""


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    """A data set of 2-dimensional absolute actions with one camera; its second image
    is missing. Returns its folder and the file with its spec."""
    path = tmp_path_factory.mktemp("arm")
    (path / "spec.py").write_text(MIXED)
    features = {
        "observation": {"image": Image(8, 8), "state": Tensor(np.float32, (6,))},
        "action": Tensor(np.float32, (2,)),
    }
    with RLDSWriter(path, "arm", features) as writer:
        for episode in range(2):
            writer.write(
                "train" if episode == 0 else "val",
                {
                    "observation": {
                        "image": [fake.image(episode, t) for t in range(4)],
                        "state": np.ones((4, 6), np.float32),
                    },
                    "action": np.stack([np.arange(4) / 4, np.ones(4)], 1).astype("f4"),
                },
            )
    return writer.folder, path / "spec.py"


def mixture(folder, arm, name="ARM"):
    datasets = (
        {"path": str(folder), "spec": "metaworld", "weight": 1.0},
        {"path": str(arm[0]), "spec": f"{arm[1]}:{name}", "weight": 1.0},
    )
    return make_source(datasets=datasets)


def test_narrow_data_sets_are_padded_and_masked(folder, arm):
    source = mixture(folder, arm)
    assert (source.action_dim, source.proprio_dim) == (4, 6)
    batch = make_batch(source, np.array([0, 1, 1]), np.array([0, 0, 3]))
    np.testing.assert_array_equal(
        batch["action_mask"][1], [[True, True, False, False]] * 3
    )
    np.testing.assert_allclose(
        batch["action"][1], [[0, 1, 0, 0], [0.25, 1, 0, 0], [0.5, 1, 0, 0]]
    )
    # Past the end, absolute dimensions stay where they are.
    np.testing.assert_allclose(batch["action"][2], [[0.75, 1, 0, 0]] * 3)
    np.testing.assert_array_equal(batch["action_mask"][2, :, 0], [True, False, False])
    assert np.all(batch["observation"]["proprio"][0, :, 4:] == 0)
    np.testing.assert_array_equal(batch["dataset"], [0, 1, 1])


def test_missing_camera_is_black_and_masked(folder, arm):
    batch = make_batch(mixture(folder, arm), np.array([0, 1]), np.array([1, 1]))
    observation = batch["observation"]
    assert observation["image_mask"]["wrist"][0].all()
    assert not observation["image_mask"]["wrist"][1].any()
    assert not observation["image"]["wrist"][1].any()
    assert observation["image_mask"]["primary"].all()


def test_missing_image_is_black_and_masked(source):
    index = copy_index(source.indexes[0])
    spans = np.array(index.image_spans["primary"])
    spans[1, 2] = 0
    index.image_spans = {**index.image_spans, "primary": spans}
    source = dataclasses.replace(source, indexes=(index,))
    episode = source.episodes("train")[0]
    assert episode.first_step[0] == 0
    observation = samples(source, 3)["observation"]
    mask = observation["image_mask"]["primary"]
    np.testing.assert_array_equal(mask, [[0, 1], [1, 0], [0, 1]])
    assert not observation["image"]["primary"][1, 1].any()
    assert observation["image"]["wrist"][1, 1].any()


def test_alternative_phrasings_are_all_used_and_chosen_by_the_seed(folder, arm):
    source = mixture(folder, arm)

    def tokens(seed, *samples):
        dataset = np.ones(len(samples), int)
        batch = make_batch(source, dataset, np.array(samples), seed=seed)
        return batch["task"]["tokens"]

    drawn = np.concatenate([tokens(seed, 0) for seed in range(40)])
    assert len(np.unique(drawn, axis=0)) == 3
    np.testing.assert_array_equal(tokens(5, 0), drawn[5:6])
    # Hosts that load parts of a batch draw what one host would.
    together = tokens(5, 1, 0)
    np.testing.assert_array_equal(together[1:], drawn[5:6])


def test_steps_without_language_have_no_real_token(folder, arm):
    source = mixture(folder, arm, "SILENT")
    task = make_batch(source, np.array([0, 1]), np.array([0, 0]))["task"]
    assert task["token_mask"][0].any() and not task["token_mask"][1].any()


def test_broken_image_is_named_with_data_set_camera_episode_and_step(source):
    index = copy_index(source.indexes[0])
    spans = np.array(index.image_spans["wrist"])
    step = int(index.first_step[1]) + 2
    spans[step, 2] -= 30
    index.image_spans = {**index.image_spans, "wrist": spans}
    source = dataclasses.replace(source, indexes=(index,))
    with pytest.raises(
        ValueError,
        match=r"'metaworld', camera 'wrist', episode 1, step 2 cannot be decoded",
    ):
        samples(source, 12)


def copy_index(index):
    kind, arguments = index.__reduce__()
    return kind(*arguments)


def test_instructions_are_dropped_in_training_only_and_by_the_seed(folder):
    text = {"length": 8, "model": "", "dropout": 0.25}
    source = make_source(folder, text=text)

    def kept(seed, numbers, split="train"):
        dataset = np.zeros(len(numbers), int)
        batch = make_batch(source, dataset, np.array(numbers), split=split, seed=seed)
        tokens, mask = batch["task"]["tokens"], batch["task"]["token_mask"].any(axis=1)
        assert not tokens[~mask].any()
        return mask

    drawn = np.stack([kept(seed, range(12)) for seed in range(100)])
    assert 0.7 < drawn.mean() < 0.8
    np.testing.assert_array_equal(kept(5, [7, 2]), drawn[5, [7, 2]])
    assert kept(0, [0, 1], "validation").all()
    with pytest.raises(ValueError, match=r"data.text.dropout is 1.*below 1"):
        make_source(folder, text=text | {"dropout": 1})

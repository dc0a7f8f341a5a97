"""Opening data sets: mistakes are named, and a source can travel."""

import json
import pickle

import numpy as np
import pytest

from tests import fake
from vla_jax.data.batch import make_batch
from vla_jax.data.source import open_source
from vla_jax.data.statistics import Statistics


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake.write_dataset(tmp_path_factory.mktemp("data"), lengths=(3, 5, 4))


def test_sizes_count_the_steps_of_each_split(folder):
    datasets = ({"path": str(folder), "spec": "metaworld", "weight": 2.0},)
    source = open_source(fake.data_config(datasets=datasets))
    assert source.sizes("train") == (12,)
    assert source.sizes("validation") == (2,)
    assert source.weights == (2.0,)
    with pytest.raises(ValueError, match=r"Unknown split 'trian'.*train.*validation"):
        source.sizes("trian")


def test_samples_are_found_in_their_episodes(folder):
    episodes = open_source(fake.data_config(folder)).episodes("train")[0]
    np.testing.assert_array_equal(episodes.length, [3, 5, 4])
    place = episodes.locate(np.array([0, 2, 3, 7, 8, 11]))
    np.testing.assert_array_equal(place.episode, episodes.number[[0, 0, 1, 1, 2, 2]])
    np.testing.assert_array_equal(place.step, [0, 2, 0, 4, 0, 3])
    np.testing.assert_array_equal(place.length, [3, 3, 5, 5, 4, 4])


def test_a_pickled_source_makes_the_same_batch(folder):
    source = open_source(fake.data_config(folder))
    copy = pickle.loads(pickle.dumps(source))
    rows = np.zeros(12, np.int32), np.arange(12)
    one, two = make_batch(source, *rows), make_batch(copy, *rows)
    np.testing.assert_array_equal(one["action"], two["action"])
    np.testing.assert_array_equal(
        one["observation"]["image"]["wrist"], two["observation"]["image"]["wrist"]
    )
    np.testing.assert_array_equal(one["task"]["tokens"], two["task"]["tokens"])


def test_metadata_survives_json_with_its_statistics(folder):
    source = open_source(fake.data_config(folder))
    metadata = json.loads(json.dumps(source.metadata()))
    assert metadata["cameras"] == ["primary", "wrist"]
    assert metadata["image_size"] == [8, 8]
    assert (metadata["window"], metadata["chunk"]) == (2, 3)
    assert (metadata["action_dim"], metadata["proprio_dim"]) == (4, 4)
    assert (metadata["text_length"], metadata["text_truncate"]) == (8, False)
    assert metadata["vocab_size"] == source.tokenizer.vocab_size
    (dataset,) = metadata["datasets"]
    assert dataset["name"] == "metaworld" and dataset["num_steps"] == 12
    assert dataset["action"] == ["relative", "relative", "relative", "gripper"]
    restored = Statistics.from_json(dataset["statistics"]["action"])
    np.testing.assert_array_equal(restored.mean, source.statistics[0]["action"].mean)


def test_config_that_went_through_json_opens_the_same(folder):
    source = open_source(json.loads(json.dumps(fake.data_config(folder))))
    assert source.image_size == (8, 8) and source.cameras == ("primary", "wrist")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": ("primary", "wirst")}, r"'wirst'.*\['primary', 'wrist'\]"),
        ({"windows": 3}, r"Unknown key 'windows' in data; did you mean 'window'\?"),
        (
            {"normalization": {"action": "none"}},
            r"data.normalization lacks \['proprio'\]",
        ),
        (
            {"normalization": {"action": "gauss", "proprio": "none"}},
            r"normalization.action 'gauss'.*quantile",
        ),
        ({"text": {"length": 2, "model": ""}}, r"data.text.length to 3"),
        ({"text": {"length": 2, "model": "no.model"}}, r"'no.model'"),
        ({"datasets": ()}, "data.datasets is empty"),
        ({"datasets": ({"path": "x"},)}, r"data.datasets\[0\] lacks \['spec'\]"),
        ({"chunk": 0}, "data.chunk must be at least 1, got 0"),
        ({"prefetch": -1}, "data.prefetch must be at least 0, got -1"),
    ],
)
def test_mistakes_in_the_config_are_named(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        open_source(fake.data_config(folder, **changes))


def test_a_missing_key_is_named(folder):
    incomplete = fake.data_config(folder)
    del incomplete["window"]
    with pytest.raises(ValueError, match=r"data lacks \['window'\]"):
        open_source(incomplete)


def test_negative_weight_is_refused_with_the_data_set_that_has_it(folder):
    datasets = ({"path": str(folder), "spec": "metaworld", "weight": -1.0},)
    with pytest.raises(ValueError, match="'metaworld' has weight -1"):
        open_source(fake.data_config(folder, datasets=datasets))


def test_long_instructions_can_be_cut_off(folder):
    source = open_source(
        fake.data_config(folder, text={"length": 2, "model": "", "truncate": True})
    )
    assert source.instructions[0][0].shape[1] == 2

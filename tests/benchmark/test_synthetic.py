"""What is made up has the shapes that the loader's batches have."""

import jax
import numpy as np
import pytest

from tests import fake
from vla_jax.benchmark import synthetic
from vla_jax.benchmark.configs import load_config
from vla_jax.data.loader import train_batches
from vla_jax.data.source import open_source
from vla_jax.serving.schema import Schema

LABELS = (
    dict(name="gripper_event"),
    dict(name="future_frames", offsets="random:1", cameras=("wrist",)),
)


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype.name), tree)


def test_a_batch_is_like_the_loaders(tmp_path):
    data = fake.data_config(fake.write_dataset(tmp_path), chunk=3, labels=LABELS)
    source = open_source(data)
    with train_batches(source, seed=0) as batches:
        real = next(batches)
    metadata = synthetic.make_metadata(data, proprio_dim=source.proprio_dim)
    batch = synthetic.make_batch(data, metadata)
    assert set(real) - set(batch) == {"episode", "step"}
    for key in batch:
        assert shapes(batch[key]) == shapes(real[key]), key
    assert all(mask.all() for mask in batch["observation"]["image_mask"].values())
    assert batch["labels"]["future_frames"]["image"]["wrist"].std() > 10


def test_metadata_describe_the_same_robot(tmp_path):
    data = fake.data_config(fake.write_dataset(tmp_path))
    source = open_source(data)
    made = synthetic.make_metadata(data, proprio_dim=source.proprio_dim)
    assert set(made) == set(source.metadata())
    assert Schema.from_metadata(made) == Schema.from_metadata(source.metadata())


@pytest.mark.parametrize("name", ["act.py", "msact.py", "anchorrefine.py", "vit.py"])
def test_every_config_has_a_batch_without_data(name):
    data = load_config(f"configs/{name}")["data"]
    batch = synthetic.make_batch(data, synthetic.make_metadata(data), batch_size=1)
    assert batch["action"].shape[:2] == (1, data["chunk"])
    images = batch["observation"]["image"]
    assert set(images) == set(data["cameras"])
    np.testing.assert_array_equal(
        next(iter(images.values())).shape, (1, 1, *data["image_size"], 3)
    )

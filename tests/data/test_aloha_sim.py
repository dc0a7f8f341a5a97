"""Simulated ALOHA: a set as published, with one camera and nothing else."""

import numpy as np
import pytest

from vla_jax.data.index import open_index
from vla_jax.data.standardize import resolve_spec
from vla_jax.data.write import Image, RLDSWriter, Tensor, Text


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    features = {
        "observation": {
            "top": Image(6, 8, encoding="png"),
            "state": Tensor(np.float32, (14,)),
        },
        "action": Tensor(np.float32, (14,)),
        "language_instruction": Text(),
    }
    rows = np.arange(28, dtype=np.float32).reshape(2, 14)
    with RLDSWriter(tmp_path_factory.mktemp("data"), "cube", features) as writer:
        for _ in range(2):
            writer.write(
                "train",
                {
                    "observation": {
                        "top": [np.full((6, 8, 3), t, np.uint8) for t in (0, 9)],
                        "state": rows,
                    },
                    "action": rows + 1,
                    "language_instruction": ["hand over the cube"] * 2,
                },
            )
    return writer.folder


def test_a_published_set_is_read_without_what_it_does_not_have(published):
    index = open_index(published, "aloha_sim", progress=False)
    assert index.cameras == ("primary",)
    np.testing.assert_array_equal(index.action[1], np.arange(15, 29))
    np.testing.assert_array_equal(index.proprio[1], np.arange(14, 28))
    assert index.instructions(0) == ["hand over the cube"]
    assert index.objects is None and index.camera_matrices == {}
    assert index.success is None and index.next_event is None


def test_views_that_were_not_recorded_are_an_error(published):
    with pytest.raises(ValueError, match=r"'secondary'.*observation/angle"):
        open_index(published, "aloha_sim_two_views", progress=False)


def test_all_dimensions_are_absolute_at_50_hz():
    for name in ("aloha_sim", "aloha_sim_four_views", "aloha_sim_two_views_depth"):
        spec = resolve_spec(name)
        assert spec.action == ("absolute",) * 14 and spec.control_hz == 50.0
    assert sorted(resolve_spec("aloha_sim_four_views").cameras) == [
        "primary",
        "secondary",
        "wrist",
        "wrist_left",
    ]
    depth = resolve_spec("aloha_sim_depth").depth
    assert depth == {"primary": "steps/observation/top_depth"}

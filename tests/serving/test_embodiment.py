"""Which robot a served policy takes itself to drive."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.serving.test_agent import metadata
from vla_jax.serving.live import make_forward
from vla_jax.serving.schema import Schema


class Tells:
    """A model whose normalized actions are the number of its robot."""

    def apply(self, variables, observation, task, rng, method):
        del variables, task, rng, method
        robot = observation.embodiment.astype(jnp.float32)
        return jnp.broadcast_to(robot[:, None, None], (1, 2, 3))


def first_action(content, dataset=None):
    shapes = Schema.from_metadata(content, dataset).input_shapes()
    inputs = {name: np.zeros((1, *s), dtype) for name, (s, dtype) in shapes.items()}
    return make_forward(Tells(), content, dataset)({}, inputs)[0, 0]


@pytest.mark.parametrize(("dataset", "robot"), [("left", 0), ("right", 1)])
def test_a_robot_is_the_place_of_its_data_set_in_the_mixture(dataset, robot):
    # The first dimension has mean 1 and deviation 1.
    content = metadata(names=("left", "right"))
    assert first_action(content, dataset)[0] == pytest.approx(1 + robot)


def test_alone_in_a_bundle_it_keeps_that_place():
    content = metadata(names=("right",))
    content["datasets"] = [{"embodiment": 1, **content["datasets"][0]}]
    assert first_action(content)[0] == pytest.approx(2)

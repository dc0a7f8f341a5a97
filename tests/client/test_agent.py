import numpy as np
import pytest

from tests.serving.fake_policy import make_policy, serving
from vla_jax.client.agent import RemoteAgent
from vla_jax.client.connection import Connection
from vla_jax.client.layouts import LAYOUTS


def observe(value):
    image = np.zeros((4, 4, 3), np.uint8)
    return {
        "image": {"primary": image, "wrist": image},
        "proprio": np.array([value, 0.0]),
    }


def test_slots_are_episodes_of_their_own_and_asked_together():
    with serving(make_policy(execute=2)) as (server, url):
        agent = RemoteAgent(lambda: Connection(url))
        assert agent.cameras == ("primary", "wrist") and agent.image_size == (4, 4)
        assert (agent.execute, agent.ensemble) == (2, None)
        for slot in range(3):
            agent.reset(slot, seed=slot)
        actions = agent.act(
            [0, 1, 2], [observe(10.0 * s) for s in range(3)], ["go"] * 3
        )
        assert actions[:, 0].tolist() == [0, 10, 20]
        assert actions[:, 2].tolist() == [0, 1, 2]  # the seeds
        assert not agent.needs_image(1)
        blind = {**observe(0), "image": {}}
        assert agent.act([1], [blind], ["go"])[0, 0] == 11
        assert agent.needs_image(1)
        assert server.stats()["requests"] == 3
        agent.reset(1, seed=9)
        assert agent.act([1], [observe(5.0)], ["go"])[0].tolist() == [5, 1, 9, 0, 1]
        with pytest.raises(ValueError, match="Slot 7 has no episode"):
            agent.needs_image(7)


def test_names_and_gripper_are_those_the_server_states():
    with serving(make_policy(), layout=LAYOUTS["libero"]) as (_, url):
        agent = RemoteAgent(lambda: Connection(url), execute=1)
        agent.reset(0, seed=0)
        # On the wire the open gripper is -1; an evaluation gets this library's 1.
        assert agent.act([0], [observe(2.0)], ["go"])[0].tolist() == [2, 1, 0, 0, 1]

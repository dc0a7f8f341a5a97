import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fake_batch import make_batch, policy_config
from vla_jax.data.image import resize
from vla_jax.data.statistics import Streaming
from vla_jax.data.text import Tokenizer
from vla_jax.models.build import build
from vla_jax.serving.agent import Agent
from vla_jax.serving.live import live_policy

ACTION = np.array([[0.0, 10.0, 0.0], [2.0, 30.0, 1.0]])
PROPRIO = np.array([[-1.0] * 4, [1.0] * 4])


def statistics(rows):
    streaming = Streaming(rows.shape[1])
    streaming.update(rows)
    return streaming.finish().to_json()


def metadata(window=1, names=("robot",)):
    entry = dict(
        cameras=["primary", "wrist"],
        action=["relative", "absolute", "gripper"],
        control_hz=10.0,
        action_dim=3,
        proprio_dim=4,
        statistics=dict(action=statistics(ACTION), proprio=statistics(PROPRIO)),
    )
    return dict(
        datasets=[{**entry, "name": name} for name in names],
        cameras=["primary", "wrist"],
        image_size=[16, 16],
        window=window,
        chunk=2,
        action_dim=3,
        proprio_dim=4,
        normalization=dict(action="mean_std", proprio="mean_std"),
        text_length=3,
        text_truncate=False,
        vocab_size=2048,
    )


def make_policy(window=1, names=("robot",), text_truncate=False, dataset=None):
    model = build(policy_config(vocab_size=2048))
    batch = make_batch(window=window)
    variables = model.init(jax.random.key(0), batch, train=False, method="loss")
    tokenizer = Tokenizer.from_file("")
    content = metadata(window, names) | dict(text_truncate=text_truncate)
    return live_policy(model, variables, content, tokenizer, dataset=dataset)


def make_agent(window=1, execute=None, **options):
    return Agent(make_policy(window, **options), execute=execute)


def observe(seed):
    rng = np.random.default_rng(seed)
    return {
        "image": {
            camera: rng.integers(0, 256, (16, 16, 3), np.uint8)
            for camera in ("primary", "wrist")
        },
        "proprio": rng.standard_normal(4).astype(np.float32),
    }


@pytest.fixture(scope="module")
def agent():
    return make_agent(execute=1)


def act(agent, slots, seeds):
    instructions = ["open it"] * len(slots)
    return agent.act(slots, [observe(seed) for seed in seeds], instructions)


def test_other_slots_and_their_order_do_not_change_an_action(agent):
    for slot in range(3):
        agent.reset(slot)
    alone = act(agent, [0], [5])
    together = act(agent, [2, 0, 1], [8, 5, 9])
    # XLA may round the rows of a call differently in the last bits.
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-5, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-4


def test_more_slots_than_rows_of_a_call_are_all_answered(agent):
    for slot in range(10):
        agent.reset(slot)
    actions = act(agent, list(range(10)), [3] * 10)
    expected = np.repeat(actions[:1], 10, 0)
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)


def test_one_program_serves_any_number_of_slots_and_any_weights():
    policy = make_policy()
    agent = Agent(policy, execute=1)
    agent.reset(0)
    agent.reset(1)
    before = act(agent, [0], [3])
    act(agent, [0, 1], [3, 4])
    # The weights are an argument of the program, not constants in it.
    forward, variables = policy._predict.func, policy._predict.args[0]
    zeros = jax.tree.map(jax.numpy.zeros_like, variables)
    policy._predict = functools.partial(forward, zeros)
    after = act(agent, [0], [3])
    assert np.abs(before - after).max() > 1e-4
    np.testing.assert_allclose(after, [[1.0, 20.0, 0.0]], atol=1e-6)
    assert forward._cache_size() == 1


def test_a_long_instruction_is_cut_off_only_where_training_did(agent):
    words = ["open the drawer and press the button"]
    agent.reset(0)
    with pytest.raises(ValueError, match=r"only 3 are allowed"):
        agent.act([0], [observe(0)], words)
    cutting = make_agent(execute=1, text_truncate=True)
    actions = []
    for text in (*words, "open the drawer"):
        cutting.reset(0)
        actions.append(cutting.act([0], [observe(0)], [text]))
    np.testing.assert_array_equal(*actions)


def test_action_is_in_the_units_of_the_data(agent):
    agent.reset(0)
    action = act(agent, [0], [0])[0]
    assert action.dtype == np.float32
    # The second dimension has mean 20 and deviation 10 in the statistics.
    assert 0 < action[1] < 40


def test_images_are_needed_only_when_a_chunk_is_due():
    agent = make_agent(execute=2)
    agent.reset(0)
    assert agent.needs_image(0)
    first = act(agent, [0], [0])
    assert not agent.needs_image(0)
    blind = {**observe(1), "image": {}}
    second = agent.act([0], [blind], ["open it"])
    assert agent.needs_image(0)
    assert np.abs(first - second).max() > 0


def test_history_needs_every_image_and_starts_masked():
    agent = make_agent(window=2, execute=2)
    agent.reset(0)
    act(agent, [0], [0])
    assert agent.needs_image(0)
    agent.reset(1)
    agent.reset(2)
    act(agent, [1, 2], [1, 2])
    act(agent, [1, 2], [3, 3])
    later = act(agent, [1, 2], [4, 4])
    np.testing.assert_array_equal(later[0], later[1])  # Frames 3 and 4 alone count.


def test_frames_before_the_first_are_masked_in_every_input():
    seen = []

    class Watcher:
        def apply(self, variables, observation, task, rng, method):
            masks = [observation.frame_mask, *observation.image_mask.values()]
            jax.debug.callback(lambda *x: seen.append(x), *masks)
            return jax.numpy.zeros((1, 2, 3))

    tokenizer = Tokenizer.from_file("")
    policy = live_policy(Watcher(), {}, metadata(2), tokenizer, batch_sizes=(1,))
    agent = Agent(policy)
    agent.reset(0)
    act(agent, [0], [0])
    jax.effects_barrier()
    assert [mask[0].tolist() for mask in seen[0]] == [[False, True]] * 3


def test_missing_camera_lists_what_came(agent):
    agent.reset(0)
    observation = observe(0)
    del observation["image"]["wrist"]
    with pytest.raises(ValueError, match=r"needs camera 'wrist'.*\['primary'\]"):
        agent.act([0], [observation], ["x"])


def test_wrong_sizes_are_named(agent):
    agent.reset(0)
    observation = observe(0)
    with pytest.raises(ValueError, match=r"proprio has shape \(3,\).*\(4,\)"):
        short = {**observation, "proprio": observation["proprio"][:3]}
        agent.act([0], [short], ["x"])
    observation["image"]["wrist"] = np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"'wrist' is uint8 \(8, 8\)"):
        agent.act([0], [observation], ["x"])


def test_images_are_resized_as_in_training(agent):
    large, small = observe(0), observe(0)
    wrist = np.random.default_rng(1).integers(0, 256, (24, 40, 3), np.uint8)
    large["image"]["wrist"] = wrist
    small["image"]["wrist"] = resize(wrist, 16, 16)
    agent.reset(0)
    agent.reset(1)
    actions = agent.act([0, 1], [large, small], ["open it"] * 2)
    np.testing.assert_array_equal(actions[0], actions[1])


def test_slot_without_episode_is_refused(agent):
    with pytest.raises(ValueError, match="Slot 77 has no episode"):
        agent.needs_image(77)


def test_after_a_mixture_the_robot_must_be_named():
    with pytest.raises(ValueError, match=r"\['left', 'right'\]; say whose"):
        make_agent(names=("left", "right"))
    with pytest.raises(ValueError, match=r"'up'; the policy knows"):
        make_agent(names=("left", "right"), dataset="up")
    assert make_agent(names=("left", "right"), dataset="right").control_hz == 10.0


class PointPolicy(nn.Module):
    """Points at its proprio with the first point, and expects it where it is."""

    point_cameras: tuple[str, ...] = ("primary", "wrist")

    def diagnose(self, observation, task, rng):
        del task, rng
        first = observation.proprio[:, -1, :2]
        points = jnp.stack([first, 0 * first], axis=1)
        future = jnp.stack([points, points + 1], axis=1)
        chunk = jnp.zeros((first.shape[0], 2, 3))
        return {"action": chunk, "maps": {}, "points": points, "future_points": future}


def test_attention_points_are_told_for_the_step_that_looked():
    tokenizer = Tokenizer.from_file("")
    agent = Agent(live_policy(PointPolicy(), {}, metadata(), tokenizer), execute=2)
    assert agent.point_cameras == ("primary", "wrist")
    for slot in (0, 1):
        agent.reset(slot)
    act(agent, [0, 1], [3, 4])
    for slot, seed in ((0, 3), (1, 4)):
        found = agent.diagnostics(slot)
        x, y = observe(seed)["proprio"][:2]
        np.testing.assert_allclose(found["points"], [[x, y], [0, 0]], atol=1e-5)
        assert found["future_points"].shape == (2, 2, 2)
    act(agent, [0], [5])  # the second action of the chunk: nobody looked
    assert agent.diagnostics(0) == {}
    assert agent.diagnostics(1)["points"].shape == (2, 2)


def test_an_agent_without_points_has_no_diagnostics(agent):
    assert agent.point_cameras == ()
    agent.reset(0)
    act(agent, [0], [5])
    assert agent.diagnostics(0) == {}

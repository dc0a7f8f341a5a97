"""LIBERO through the standard interface: names, protocol, conventions, pictures."""

import importlib.util

import numpy as np
import pytest

from tests.own_process import in_own_process
from vla_jax.data.features import flatten
from vla_jax.simulation.demonstration import Recipe, step_features
from vla_jax.simulation.environment import (
    check_tasks,
    dataset_name,
    fixed_starts,
    make_environment,
    phrasings,
)
from vla_jax.simulation.libero import adapter, package

_SUITES = {
    "libero_object": ("pick_up_the_milk", "pick_up_the_butter"),
    "libero_90": ("KITCHEN_SCENE1_open_the_drawer",),
}


def _installed():
    names = ("libero", "robosuite", "bddl", "numba", "cv2", "easydict")
    return all(importlib.util.find_spec(name) for name in names)


needs_libero = pytest.mark.skipif(not _installed(), reason="LIBERO is not installed")


@pytest.fixture
def suites(monkeypatch):
    monkeypatch.setattr(package, "suites", lambda: _SUITES)


def test_a_suite_stands_for_its_tasks_in_their_order(suites):
    assert check_tasks("libero", ["libero_object"]) == _SUITES["libero_object"]
    with pytest.raises(ValueError, match="A task is named twice"):
        check_tasks("libero", ["libero_object", "pick_up_the_milk"])
    with pytest.raises(ValueError, match=r"'libero_objct'.*libero_object"):
        check_tasks("libero", ["libero_objct"])


def test_demonstrations_are_called_as_the_published_set_of_their_suite(suites):
    assert dataset_name("libero", ["pick_up_the_butter"]) == "libero_object_no_noops"
    with pytest.raises(ValueError, match="a data set holds one suite"):
        dataset_name("libero", ["pick_up_the_butter", *_SUITES["libero_90"]])
    assert dataset_name("metaworld", ["reach"]) == "metaworld"


def test_instructions_are_the_published_ones(suites):
    assert phrasings("libero", "pick_up_the_milk") == ("pick up the milk",)
    assert phrasings("libero", _SUITES["libero_90"][0]) == ("open the drawer",)


def test_step_limits_and_initial_states_are_those_of_the_published_protocol():
    assert adapter.HORIZONS == {
        "libero_spatial": 220,
        "libero_object": 280,
        "libero_goal": 300,
        "libero_10": 520,
        "libero_90": 400,
    }
    assert adapter.SETTLE_STEPS == 10
    assert fixed_starts("libero") == 50 and fixed_starts("metaworld") == 0


def test_recorded_fields_are_those_of_the_published_sets():
    features = flatten(step_features(Recipe(environment="libero", image_size=256)))
    shapes = {
        name: getattr(feature, "shape", None) for name, feature in features.items()
    }
    assert shapes["observation/state"] == (8,)
    assert shapes["observation/joint_state"] == shapes["action"] == (7,)
    assert set(shapes) == {
        "observation/image",
        "observation/wrist_image",
        "observation/state",
        "observation/joint_state",
        "action",
        "language_instruction",
        "reward",
        "discount",
        "is_first",
        "is_last",
        "is_terminal",
    }


def test_pictures_are_mirrored_as_the_published_ones():
    upright = np.arange(12).reshape(2, 2, 3)
    upside_down = upright[::-1]
    np.testing.assert_array_equal(
        adapter.published_view(upright), upside_down[::-1, ::-1]
    )


def test_another_camera_is_refused(suites):
    with pytest.raises(ValueError, match=r"Unknown camera 'wirst'.*wrist"):
        make_environment("libero", "pick_up_the_milk", cameras=("wirst",))


@needs_libero
@in_own_process
def test_the_seed_alone_pins_the_episode():
    import numpy as np

    from vla_jax.simulation.environment import make_environment

    task = "pick_up_the_cream_cheese_and_place_it_in_the_basket"
    environment = make_environment("libero", task, cameras=())
    assert environment.horizon == 280 and environment.control_hz == 20

    def play(seed, num_steps):
        states = [environment.reset(seed)["proprio"]]
        states.append(environment.simulator.sim.get_state().flatten())
        for _ in range(num_steps):
            observation, reward, solved = environment.step(environment.expert_action())
            states.append(observation["proprio"])
        assert reward == 0 and not solved
        return np.concatenate(states)

    fixed, drawn = play(3, 5), play(12345, 5)
    play(4, 15)  # closes the hand
    np.testing.assert_array_equal(play(3, 5), fixed)
    np.testing.assert_array_equal(play(12345, 5), drawn)
    # Objects stand where the file has them, but for ten steps of settling.
    published = environment._fixed[3]
    joints = environment.simulator.sim.model.nq
    settled = fixed[8 : 8 + 1 + joints]
    np.testing.assert_allclose(settled[10:], published[10 : 1 + joints], atol=0.04)
    assert np.abs(drawn - fixed).max() > 0.02


@needs_libero
@in_own_process
def test_gripper_one_is_open_and_displacements_are_in_the_frame_of_the_robot():
    import numpy as np

    from vla_jax.simulation.environment import make_environment

    task = "pick_up_the_milk_and_place_it_in_the_basket"
    environment = make_environment("libero", task, cameras=())
    start = environment.reset(0)["proprio"]
    native = environment.native_action(np.array([0.5, -3, 0, 0, 0, 0, 1.0]))
    np.testing.assert_array_equal(native, [0.5, -1, 0, 0, 0, 0, -1])
    for _ in range(10):
        end, _, _ = environment.step(np.array([0, 0.5, 0, 0, 0, 0, 0.0]))
    moved = end["proprio"] - start
    assert moved[1] > 0.03 and abs(moved[0]) < 0.02 and abs(moved[2]) < 0.02
    # Two fingers that move apart and together.
    assert start[6] > 0.03 > -0.03 > start[7]
    assert end["proprio"][6] < 0.01


@needs_libero
@in_own_process
def test_a_collection_is_read_by_the_entry_of_the_published_set():
    import contextlib
    import io
    import tempfile

    import numpy as np

    from vla_jax.data.batch import make_batch
    from vla_jax.data.source import open_source
    from vla_jax.simulation.collect import collect
    from vla_jax.simulation.demonstration import Recipe

    task = "pick_up_the_cream_cheese_and_place_it_in_the_basket"
    recipe = Recipe(environment="libero", image_size=16, hold_steps=2)
    with tempfile.TemporaryDirectory() as out:
        folder, report = collect(
            out, [task], episodes=1, workers=1, recipe=recipe, progress=False
        )
        assert folder.parts[-2:] == ("libero_object_no_noops", "1.0.0")
        config = {
            "datasets": [{"path": str(folder), "spec": "libero_object_no_noops"}],
            "cameras": ("primary", "wrist"),
            "image_size": (16, 16),
            "window": 1,
            "chunk": 300,
            "normalization": {"action": "none", "proprio": "none"},
            "text": {"length": 40, "model": ""},
            "batch_size": 1,
            "num_threads": 0,
            "prefetch": 0,
        }
        with contextlib.redirect_stdout(io.StringIO()):
            source = open_source(config)
        batch = make_batch(source, np.array([0]), np.array([0]))
        assert source.indexes[0].spec.control_hz == 20
    length = int(report["tasks"][task]["mean_steps"])
    action = batch["action"][0, :length]
    # Open, closed (twice where a grasp fails), open over the basket; never idle.
    changes = np.flatnonzero(np.diff(action[:, 6]))
    assert action[0, 6] == 1 and action[-1, 6] == 1 and len(changes) >= 2
    assert (np.linalg.norm(action[:, :6], axis=1) > 1e-4).all()
    assert batch["observation"]["image"]["wrist"].shape == (1, 1, 16, 16, 3)
    assert batch["observation"]["proprio"].shape == (1, 1, 8)

"""From the scripted expert of ALOHA to batches, with every label it records."""

import importlib.util

import pytest

# Not importorskip: that would import MuJoCo before its OpenGL backend is chosen.
if importlib.util.find_spec("gym_aloha") is None:
    pytest.skip("gym-aloha is not installed", allow_module_level=True)

from tests.own_process import in_own_process
from vla_jax.simulation.demonstration import Recipe, step_features


def test_recorded_fields_have_the_names_of_the_published_sets():
    features = step_features(Recipe(environment="aloha", image_size=(480, 640)))
    assert {"observation", "action", "language_instruction", "discount"} < set(features)
    observation = features["observation"]
    assert observation["state"].shape == features["action"].shape == (14,)
    assert (observation["top"].height, observation["top"].width) == (480, 640)
    assert not any("depth" in key or "angle" in key for key in observation)


def test_recipes_that_cannot_be_recorded_are_refused():
    with pytest.raises(ValueError, match=r"Unknown camera 'top'.*primary"):
        Recipe(environment="aloha", cameras=("top",))
    with pytest.raises(ValueError, match=r"depth of camera 'secondary'"):
        Recipe(environment="aloha", depth=("secondary",))
    with pytest.raises(ValueError, match="recorded as 'top'"):
        Recipe(environment="aloha", primary="angle")


@in_own_process
def test_a_collection_is_indexed_and_loaded():
    import contextlib
    import io
    import tempfile

    import numpy as np

    from vla_jax.data.batch import make_batch
    from vla_jax.data.source import open_source
    from vla_jax.simulation.collect import collect, rehearse

    recipe = Recipe(environment="aloha", image_size=(12, 16), depth=("primary",))
    with tempfile.TemporaryDirectory() as out:
        folder, report = collect(
            out, ["transfer_cube"], episodes=1, workers=1, recipe=recipe, progress=False
        )
        assert report["tasks"]["transfer_cube"] == {
            "kept": 1,
            "attempts": 1,
            "mean_steps": 400.0,
        }
        config = {
            "datasets": [{"path": str(folder), "spec": "aloha_sim_depth"}],
            "cameras": ("primary",),
            "image_size": (12, 16),
            "window": 1,
            "chunk": 3,
            "normalization": {"action": "none", "proprio": "none"},
            "text": {"length": 40, "model": ""},
            "batch_size": 2,
            "num_threads": 0,
            "prefetch": 0,
            "depth": ("primary",),
            "camera_matrices": True,
            "labels": ({"name": "objects"},),
        }
        with contextlib.redirect_stdout(io.StringIO()):
            source = open_source(config)
        batch = make_batch(source, np.array([0, 0]), np.array([0, 399]))
        index = source.indexes[0]
        assert index.spec.control_hz == 50.0 and index.success.tolist() == [1]
    observation = batch["observation"]
    assert batch["action"].shape == (2, 3, 14)
    assert batch["action_mask"][1, :, 0].tolist() == [True, False, False]
    # The first target is the position of rest with closed grippers.
    arm = [0, -0.96, 1.16, 0, -0.3, 0]
    np.testing.assert_allclose(batch["action"][0, 0], [*arm, 0, *arm, 0], atol=1e-6)
    np.testing.assert_allclose(
        observation["proprio"][0, 0], [*arm, 0.09985, *arm, 0.09985], atol=1e-4
    )
    assert observation["image"]["primary"].shape == (2, 1, 12, 16, 3)
    # The camera hangs 80 cm above the table.
    depth = observation["depth"]["primary"][0, 0]
    np.testing.assert_allclose(depth[3, 3:13], 0.8, atol=0.005)
    matrices = observation["camera"]["primary"]
    intrinsics, extrinsics = matrices["intrinsics"][0, 0], matrices["extrinsics"][0, 0]
    expected = [[7.409, 0, 8], [0, 7.409, 6], [0, 0, 1]]
    np.testing.assert_allclose(intrinsics, expected, atol=1e-3)
    expected = [[1, 0, 0, 0], [0, -1, 0, 0.6], [0, 0, -1, 0.8]]
    np.testing.assert_allclose(extrinsics[:3], expected, atol=1e-5)
    objects = batch["labels"]["objects"]
    assert objects["mask"].tolist() == [[[True, False]], [[True, False]]]
    assert 0 <= objects["pose"][0, 0, 0, 0] <= 0.2
    np.testing.assert_allclose(objects["pose"][0, 0, 0, 2:], [0.05, 0, 0, 0, 1])
    assert objects["pose"][1, 0, 0, 2] > 0.1  # handed over, in the air
    outcomes = rehearse(
        ["transfer_cube"], attempts=1, workers=1, recipe=recipe, progress=False
    )
    assert outcomes == {"transfer_cube": [(400, True)]}

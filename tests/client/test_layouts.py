import numpy as np
import pytest

from vla_jax.client.layouts import LAYOUTS, Layout, make_layout


def test_nested_maps_are_flat_names():
    found = LAYOUTS["aloha"].read(
        {"images": {"cam_high": np.zeros((3, 5, 6), np.uint8)}, "state": np.ones(14)}
    )
    assert found["image/primary"].shape == (5, 6, 3)  # channels came first
    assert found["proprio"].shape == (14,)


def test_parts_are_joined_and_a_missing_one_is_named():
    layout = LAYOUTS["droid"]
    arm = np.arange(7.0)
    whole = layout.read(
        {"observation/joint_position": arm, "observation/gripper_position": [0.5]}
    )
    np.testing.assert_array_equal(whole["proprio"], [*range(7), 0.5])
    with pytest.raises(ValueError, match=r"'proprio' needs \['observation/gripper_p"):
        layout.read({"observation/joint_position": arm})
    with pytest.raises(ValueError, match="arrays of numbers"):
        layout.read(
            {"observation/joint_position": arm, "observation/gripper_position": "x"}
        )
    with pytest.raises(ValueError, match="not to be joined"):
        layout.read(
            {
                "observation/joint_position": arm[None],
                "observation/gripper_position": arm,
            }
        )


def test_a_client_writes_what_a_server_reads():
    layout = LAYOUTS["libero"]
    observation = {
        "image/primary": np.zeros((2, 2, 3), np.uint8),
        "proprio": np.ones(8),
    }
    sent = layout.write(observation)
    assert set(sent) == {"observation/image", "observation/state"}
    assert set(layout.read(sent)) == set(observation)
    with pytest.raises(ValueError, match="sizes are unknown"):
        LAYOUTS["droid"].write({"proprio": np.ones(8)})


@pytest.mark.parametrize(
    ("gripper", "opened", "closed"),
    [("open_1", 1, 0), ("closed_1", 0, 1), ("closed_1_open_-1", -1, 1)],
)
def test_grippers_turn_there_and_back(gripper, opened, closed):
    layout = Layout(gripper=gripper)
    actions = np.array([[7.0, 1.0], [7.0, 0.0]], np.float32)
    sent = layout.actions_out(actions)
    assert sent.tolist() == [[7, opened], [7, closed]]
    np.testing.assert_array_equal(layout.actions_in(sent), actions)


def test_names_and_grippers_can_be_changed():
    layout = make_layout("libero", {"proprio": "a+b"}, "open_1")
    assert layout.names["proprio"] == ("a", "b")
    assert layout.names["image/primary"] == ("observation/image",)
    assert layout.gripper == "open_1"
    with pytest.raises(ValueError, match="Unknown layout 'liber'"):
        make_layout("liber", {}, None)
    with pytest.raises(ValueError, match="Unknown gripper 'up'"):
        make_layout("libero", {}, "up")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ([], "a list came"),
        ({b"a": 1}, "Names are texts"),
        ({"a": {"b": 1}, "a/b": 2}, "'a/b' twice"),
    ],
)
def test_what_is_no_observation_is_refused(message, words):
    with pytest.raises(ValueError, match=words):
        Layout().read(message)

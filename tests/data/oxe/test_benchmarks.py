"""LIBERO, ManiSkill and ALOHA, from disk to index; and that no entry goes untested."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.fake_oxe import FILE, check, counting, in_one, numbers
from vla_jax.data import oxe
from vla_jax.data.image import decode_depth
from vla_jax.data.mixtures import MIXTURES
from vla_jax.data.write import Image, Text


@pytest.mark.parametrize("suite", ["spatial", "object", "goal", "10", "90"])
def test_libero_closes_at_one(tmp_path, suite):
    action = counting(2, 7)
    action[:, 6] = [-1, 1]
    observation = {
        "image": Image(256, 256),
        "joint_state": numbers(7),
        "state": numbers(8),
        "wrist_image": Image(256, 256),
    }
    check(
        tmp_path,
        f"libero_{suite}_no_noops",
        in_one(7, observation, embedding=False),
        {
            "action": action,
            "observation/state": counting(2, 8),
            "language_instruction": ["turn on the stove"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 7],
            [100, 101, 102, 103, 104, 105, 106, 107],
        ],
        language=["turn on the stove"],
        hz=20,
        metadata_features=FILE,
    )


def test_maniskill_opens_at_one_and_measures_depth(tmp_path):
    action = counting(2, 7)
    action[:, 6] = [-1, 1]
    pose = "target_object_or_part_{}_pose{}"
    observation = {
        "base_pose": numbers(7),
        "depth": Image(256, 256, 1, "png", np.uint16),
        "image": Image(256, 256),
        "main_camera_cam2world_gl": numbers(4, 4),
        "main_camera_extrinsic_cv": numbers(4, 4),
        "main_camera_intrinsic_cv": numbers(3, 3),
        "state": numbers(18),
        pose.format("final", ""): numbers(7),
        pose.format("final", "_valid"): numbers(7, dtype=np.uint8),
        pose.format("initial", ""): numbers(7),
        pose.format("initial", "_valid"): numbers(7, dtype=np.uint8),
        "tcp_pose": numbers(7),
        "wrist_camera_cam2world_gl": numbers(4, 4),
        "wrist_camera_extrinsic_cv": numbers(4, 4),
        "wrist_camera_intrinsic_cv": numbers(3, 3),
        "wrist_depth": Image(256, 256, 1, "png", np.uint16),
        "wrist_image": Image(256, 256),
    }
    # The base stands at (1, 2, 0), turned by 90 degrees about z; the camera, not
    # turned, sees the origin of the world at (0, 0, 5).
    half = np.sqrt(0.5)
    extrinsic = np.eye(4)
    extrinsic[2, 3] = 5
    index = check(
        tmp_path,
        "maniskill_dataset_converted_externally_to_rlds",
        in_one(7, observation),
        {
            "action": action,
            "observation/tcp_pose": counting(2, 7),
            "observation/state": counting(2, 18),
            "observation/base_pose": np.array([[1, 2, 0, half, 0, 0, half]] * 2),
            "observation/main_camera_extrinsic_cv": np.stack([extrinsic] * 2),
            "observation/main_camera_intrinsic_cv": np.array([np.diag([2, 3, 1])] * 2),
            "observation/wrist_camera_extrinsic_cv": np.stack([np.eye(4)] * 2),
            "observation/wrist_camera_intrinsic_cv": np.stack([np.eye(3)] * 2),
            "observation/depth": np.full((2, 256, 256, 1), 512, np.uint16),
            "language_instruction": ["stack the red cube"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 0], [100, 101, 102, 103, 104, 105, 1]],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 7],
            [100, 101, 102, 103, 104, 105, 106, 107],
        ],
        language=["stack the red cube"],
        hz=20,
        metadata_features=FILE | {"episode_id": Text()},
    )
    matrices = index.camera_matrices["primary"]
    expected = [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 5], [0, 0, 0, 1]]
    np.testing.assert_allclose(matrices["extrinsics"][1], expected, atol=1e-6)
    assert matrices["intrinsics"][0].tolist() == [[2, 0, 0], [0, 3, 0], [0, 0, 1]]
    depth = np.zeros((4, 4), np.float32)
    scale = index.spec.depth_scale["primary"]
    feature = index.depth_features["primary"]
    decode_depth(index.read_depth("primary", 1), feature, depth, scale)
    assert (depth == 0.5).all()


@pytest.mark.parametrize(
    "name",
    [
        "aloha1_fold_shorts_20_demos",
        "aloha1_fold_shirt_30_demos",
        "aloha1_scoop_X_into_bowl_45_demos",
        "aloha1_put_X_into_pot_300_demos",
    ],
)
def test_aloha_has_goals_of_two_arms(tmp_path, name):
    cameras = ("image", "left_wrist_image", "right_wrist_image", "low_cam_image")
    observation = {camera: Image(256, 256) for camera in cameras}
    check(
        tmp_path,
        name,
        in_one(14, observation | {"state": numbers(14)}, embedding=False),
        {
            "action": counting(2, 14),
            "observation/state": counting(2, 14) + 50,
            "language_instruction": ["fold shorts"] * 2,
        },
        action=[
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
            [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113],
        ],
        proprio=[
            [50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63],
            [150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 160, 161, 162, 163],
        ],
        language=["fold shorts"],
        kinds="aaaaaaaaaaaaag",
        hz=25,
        metadata_features=FILE,
    )


@pytest.mark.parametrize("name", ["aloha_static_dataset", "aloha_dagger_dataset"])
def test_aloha_at_50_hz_keeps_every_fifth_step(tmp_path, name):
    cameras = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
    observation = {camera: Image(480, 640) for camera in cameras}
    check(
        tmp_path,
        name,
        in_one(14, observation | {"state": numbers(14)}, embedding=False),
        {
            "action": np.repeat(np.arange(6)[:, None], 14, axis=1) / 8,
            "observation/state": np.repeat(np.arange(6)[:, None], 14, axis=1),
            "language_instruction": ["open the cup"] * 6,
        },
        action=[[0] * 14, [0.625] * 14],
        proprio=[[0] * 14, [5] * 14],
        language=["open the cup"],
        kinds="aaaaaaaaaaaaag",
        hz=10,
        metadata_features=FILE,
    )


def test_every_entry_is_tested_and_documented():
    tests = "".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    families = {
        "libero_": 'f"libero_{suite}_no_noops"',
        "tdroid_": 'f"tdroid_{task}"',
        "utokyo_pr2_": 'TOKYO_PR2 = "utokyo_pr2_{}_converted_externally_to_rlds"',
    }
    for name in oxe.DATASETS:
        written = [v for prefix, v in families.items() if name.startswith(prefix)]
        assert (written or [f'"{name}"'])[0] in tests, name
    docs = (Path(__file__).parents[3] / "docs/data.md").read_text()
    entries, _, mixtures = docs.partition("\n## Mixtures\n")
    row = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
    assert sorted(row.findall(entries)) == sorted(oxe.DATASETS)
    assert sorted(row.findall(mixtures)) == sorted(MIXTURES)


def test_the_table_flags_what_is_assumed():
    docs = (Path(__file__).parents[3] / "docs/data.md").read_text()
    table = re.findall(r"^\| `(\w+)` \|(.*)\|$", docs.partition("\n## Mix")[0], re.M)
    rows = {name: [cell.strip() for cell in cells.split("|")] for name, cells in table}
    for name, (cameras, _, action, gripper, hz, schema, assumed) in rows.items():
        spec = oxe.DATASETS[name]
        found = dict.fromkeys(spec.cameras, "") | dict.fromkeys(spec.depth, " (depth)")
        written = ", ".join(camera + depth for camera, depth in found.items())
        assert cameras == (written or "none named"), name
        assert float(hz) == round(spec.control_hz, 2), name
        for kind in ("relative", "absolute"):
            count = re.search(rf"(\d+) {kind}", action)
            assert spec.action.count(kind) == (int(count[1]) if count else 0), name
        assert ("schema" in assumed) == schema.startswith("K"), name
        assert "gripper" in assumed or "[2]" not in gripper, name
        assert "kinds" in assumed or "[5]" not in schema, name
        assert assumed, name


@pytest.mark.parametrize("name", ["aloha_mobile", "aloha_mobile_dataset"])
def test_mobile_aloha_has_its_base_before_the_right_gripper(tmp_path, name):
    cameras = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    observation = {camera: Image(480, 640) for camera in cameras}
    action = counting(6, 16)
    action[:, 13] = [0, 0.2, 0.4, 0.6, 0.8, 1]
    check(
        tmp_path,
        name,
        in_one(16, observation | {"state": numbers(14)}, embedding=False),
        {
            "action": action,
            "observation/state": counting(6, 14) + 20,
            "language_instruction": ["wipe the wine"] * 6,
        },
        action=[
            [*range(13), 14, 15, 0],
            [*range(500, 513), 514, 515, 1],
        ],
        proprio=[[*range(20, 34)], [*range(520, 534)]],
        language=["wipe the wine"],
        kinds="aaaaaaaaaaaaarrg",
        hz=10,
        metadata_features=FILE,
    )


def test_mujoco_manip_closes_with_255(tmp_path):
    action = counting(3, 7)
    action[:, 6] = [0, 51, 255]
    check(
        tmp_path,
        "mujoco_manip",
        in_one(7, {"image": Image(8, 8), "proprio": numbers(7)}, embedding=False),
        {
            "action": action,
            "observation/proprio": counting(3, 7),
            "language_instruction": ["stack"] * 3,
        },
        action=[
            [0, 1, 2, 3, 4, 5, 1],
            [100, 101, 102, 103, 104, 105, 0.8],
            [200, 201, 202, 203, 204, 205, 0],
        ],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6],
            [100, 101, 102, 103, 104, 105, 106],
            [200, 201, 202, 203, 204, 205, 206],
        ],
        language=["stack"],
        hz=5,
    )

"""Tiny demonstrations as robomimic, LIBERO, ALOHA and LeRobot leave them on disk."""

import io
import json
from pathlib import Path

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FPS = 10
TASKS = ("pick the cube", "push the cube")


def picture(episode: int, step: int, size: tuple[int, int] = (16, 24)) -> np.ndarray:
    """A picture of one color that tells episode and step, uint8 [h, w, 3]."""
    color = [40 + 80 * episode, 20 + 40 * step, 100]
    return np.full((*size, 3), color, np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    """An encoded picture."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_libero(path: Path, lengths=(3, 2), *, instruction="open the drawer") -> Path:
    """A file of LIBERO's; actions are 10 * episode + step, the gripper -1 then +1."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
        if instruction:
            problem = {"problem_name": "x", "language_instruction": instruction}
            data.attrs["problem_info"] = json.dumps(problem)
        for episode, length in enumerate(lengths):
            demo = data.create_group(f"demo_{episode}")
            action = np.zeros((length, 7))
            action[:, 0] = 10 * episode + np.arange(length)
            action[:, -1] = np.where(np.arange(length) > 0, 1, -1)
            demo["actions"] = action
            demo["dones"] = (np.arange(length) == length - 1).astype(np.uint8)
            demo["rewards"] = (np.arange(length) == length - 1).astype(np.uint8)
            obs = demo.create_group("obs")
            images = np.stack([picture(episode, t) for t in range(length)])
            obs["agentview_rgb"] = images
            obs["eye_in_hand_rgb"] = images[:, ::-1]
            obs["ee_pos"] = np.full((length, 3), 1.0)
            obs["ee_ori"] = np.full((length, 3), 2.0)
            obs["gripper_states"] = np.full((length, 2), 3.0)
            obs["joint_states"] = np.zeros((length, 7))
    return path


def write_robomimic(path: Path, *, valid=("demo_2",)) -> Path:
    """A file of robomimic's with absolute actions and a mask of held-out demos."""
    controller = {"type": "OSC_POSE", "control_delta": False}
    kwargs = {"control_freq": 15, "controller_configs": controller}
    with h5py.File(path, "w") as file:
        file["mask/valid"] = np.array(valid, "S")
        file["mask/train"] = np.array(["demo_0", "demo_10"], "S")
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": kwargs})
        for number in (0, 2, 10):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = np.full((2, 7), number / 10)
            obs = demo.create_group("obs")
            obs["agentview_image"] = np.stack([picture(0, t, (8, 8)) for t in range(2)])
            obs["robot0_eef_pos"] = np.zeros((2, 3))
            obs["robot0_eef_quat"] = np.zeros((2, 4))
            obs["robot0_gripper_qpos"] = np.zeros((2, 2))
            obs["object"] = np.zeros((2, 10))
    return path


def write_aloha(folder: Path, num_episodes=2, *, compress: bool) -> Path:
    """Files of ALOHA's: 14 joints, actions are episode + step / 10."""
    folder.mkdir()
    for episode in range(num_episodes):
        with h5py.File(folder / f"episode_{episode}.hdf5", "w") as file:
            file.attrs["sim"], file.attrs["compress"] = False, compress
            steps = np.arange(3)[:, None]
            file["action"] = np.broadcast_to(episode + steps / 10, (3, 14))
            observations = file.create_group("observations")
            observations["qpos"] = np.broadcast_to(episode - steps, (3, 14))
            observations["qvel"] = np.zeros((3, 14))
            images = observations.create_group("images")
            for camera in ("cam_high", "cam_left_wrist", "cam_right_wrist"):
                frames = [picture(episode, t) for t in range(3)]
                images[camera] = _padded(frames) if compress else np.stack(frames)
    return folder


def write_lerobot(root: Path, lengths=(4, 3), *, dtype="video", version="v3.0") -> Path:
    """A LeRobot data set with all episodes in one video and one table."""
    camera, (height, width) = "observation.images.top", (16, 24)
    total = sum(lengths)
    features = {
        "action": {
            "dtype": "float32",
            "shape": [2],
            "names": ["shoulder_pan.pos", "gripper.pos"],
        },
        "observation.state": {"dtype": "float32", "shape": [2], "names": None},
        camera: {
            "dtype": dtype,
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
        },
    }
    for key in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        kind = "float32" if key == "timestamp" else "int64"
        features[key] = {"dtype": kind, "shape": [1], "names": None}
    info = {
        "codebase_version": version,
        "fps": FPS,
        "features": features,
        "splits": {"train": f"0:{len(lengths) - 1}", "val": f"{len(lengths) - 1}:9"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/"
        "file-{file_index:03d}.mp4",
    }
    meta = root / "meta"
    meta.mkdir(parents=True)
    (meta / "info.json").write_text(json.dumps(info))
    stats = {"action": {"min": [0.0, 0.0], "max": [1.0, 50.0]}}
    (meta / "stats.json").write_text(json.dumps(stats))
    episode = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.concatenate([np.arange(n) for n in lengths])
    tasks = {"task_index": [0, 1], "__index_level_0__": list(TASKS)}
    pq.write_table(pa.table(tasks), meta / "tasks.parquet")
    columns = {
        "action": [[float(e), 10.0 * t] for e, t in zip(episode, frame, strict=True)],
        "observation.state": [[float(t), -1.0] for t in frame],
        "timestamp": (frame / FPS).astype(np.float32),
        "frame_index": frame,
        "episode_index": episode,
        "index": np.arange(total),
        "task_index": episode % 2,
    }
    pictures = [picture(e, t) for e, t in zip(episode, frame, strict=True)]
    if dtype == "image":
        columns[camera] = [{"bytes": jpeg(p), "path": None} for p in pictures]
    _write_table(root / "data/chunk-000/file-000.parquet", columns)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    rows = {
        "episode_index": range(len(lengths)),
        "tasks": [[TASKS[e % 2]] for e in range(len(lengths))],
        "length": lengths,
        "data/chunk_index": [0] * len(lengths),
        "data/file_index": [0] * len(lengths),
        "dataset_from_index": starts,
        "dataset_to_index": ends,
        "stats/action/min": [[0.0, 0.0]] * len(lengths),
    }
    if dtype == "video":
        rows |= {
            f"videos/{camera}/chunk_index": [0] * len(lengths),
            f"videos/{camera}/file_index": [0] * len(lengths),
            f"videos/{camera}/from_timestamp": starts / FPS,
            f"videos/{camera}/to_timestamp": ends / FPS,
        }
        write_video(root / "videos" / camera / "chunk-000/file-000.mp4", pictures)
    _write_table(meta / "episodes/chunk-000/file-000.parquet", rows)
    return root


def write_video(path: Path, pictures) -> None:
    """A video with a key frame every second frame, as LeRobot encodes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", FPS)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", 2
        stream.options = {"crf": "5"}
        for image in pictures:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_depth_video(path: Path, codes) -> None:
    """A video of 12-bit codes, uint16 [h, w], without losses, as LeRobot's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", FPS)
        stream.height, stream.width = codes[0].shape
        stream.pix_fmt = "gray12le"
        stream.options = {"x265-params": "lossless=1:log-level=none:keyint=2"}
        for image in codes:
            frame = av.VideoFrame.from_ndarray(image, format="gray12le")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def copy_video_columns(root: Path, camera: str, other: str) -> None:
    """Says of another camera that its videos are where those of `camera` are."""
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for name in table.column_names:
        if name.startswith(f"videos/{camera}/"):
            table = table.append_column(name.replace(camera, other), table[name])
    pq.write_table(table, path)


def tiff(depth: np.ndarray) -> bytes:
    """An encoded depth image."""
    file = io.BytesIO()
    Image.fromarray(depth).save(file, "TIFF")
    return file.getvalue()


def _padded(frames) -> np.ndarray:
    """JPEGs of different lengths in one array, uint8 [T, longest]."""
    encoded = [jpeg(frame) for frame in frames]
    longest = max(len(data) for data in encoded) + 5
    rows = [data.ljust(longest, b"\0") for data in encoded]
    return np.stack([np.frombuffer(row, np.uint8) for row in rows])


def _write_table(path: Path, columns: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        key: value if isinstance(value, list) else np.asarray(value)
        for key, value in columns.items()
    }
    pq.write_table(pa.table(arrays), path)

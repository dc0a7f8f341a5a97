"""Indexes are built once, continue after a kill, and name what is wrong."""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import fake
from vla_jax.data import build as build_module
from vla_jax.data import index as index_module
from vla_jax.data.index import Index
from vla_jax.data.standardize import DATASETS, DatasetSpec
from vla_jax.data.statistics_formats import read_statistics
from vla_jax.data.write import Image, RLDSWriter, Tensor

SPEC = DATASETS["metaworld"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return fake.write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def index(folder) -> Index:
    return fake.open_index(folder)


def test_a_share_of_the_episodes_is_held_out(tmp_path):
    folder = fake.write_dataset(tmp_path, lengths=(2,) * 9, val_lengths=())
    spec = dataclasses.replace(SPEC, holdout=0.2)
    index = fake.open_index(folder, spec)
    train, val = index.split_episodes("train"), index.split_episodes("val")
    assert (len(train), len(val)) == (7, 2)
    assert sorted([*train, *val]) == list(range(9))
    assert index.statistics["action"].count == 14
    kept = index.action[np.isin(index.episode, train)]
    np.testing.assert_allclose(index.statistics["action"].mean, kept.mean(0), rtol=1e-5)
    again = fake.open_index(folder, spec, out=tmp_path / "other", num_workers=2)
    np.testing.assert_array_equal(again.split, index.split)
    none = fake.open_index(
        folder, dataclasses.replace(SPEC, holdout=0.0), out=tmp_path / "none"
    )
    assert none.split_names == ["train"]


def test_a_validation_split_has_several_names(tmp_path):
    features = fake.features()
    with RLDSWriter(tmp_path, "robot", features, fake.METADATA) as writer:
        for number, split in enumerate(("test", "extra", "train")):
            writer.write(split, *fake.episode(number, 2))
    index = fake.open_index(writer.folder)
    assert index.split_names == ["train", "extra", "test"]
    assert index.split_episodes("val").tolist() == [2]
    assert index.split_episodes("train").tolist() == [0]
    np.testing.assert_allclose(index.action[0, 0], fake.action(2, 0)[0])


def test_workers_build_the_same_index(folder, index, tmp_path):
    parallel = fake.open_index(folder, out=tmp_path / "index", num_workers=2)
    for path in index.path.iterdir():
        assert path.read_bytes() == (parallel.path / path.name).read_bytes(), path


def test_a_valid_index_is_used_and_an_outdated_one_explained(tmp_path, capsys):
    folder = fake.write_dataset(tmp_path)
    with pytest.raises(ValueError, match="there is none yet"):
        fake.open_index(folder, build=False)
    index = fake.open_index(folder)
    capsys.readouterr()
    time_built = (index.path / "index.json").stat().st_mtime_ns
    fake.open_index(folder)
    assert (index.path / "index.json").stat().st_mtime_ns == time_built
    assert capsys.readouterr().out == ""

    spec = dataclasses.replace(SPEC, cameras={"primary": SPEC.cameras["wrist"]})
    with pytest.raises(ValueError, match="what changed: cameras"):
        fake.open_index(folder, spec, build=False)
    assert fake.open_index(folder, spec).read_image("primary", 0) == index.read_image(
        "wrist", 0
    )
    assert "(what changed: cameras)" in capsys.readouterr().out

    def other(raw):
        return SPEC.standardize(raw) | {"language": ["other"]}

    index = fake.open_index(folder, dataclasses.replace(spec, standardize=other))
    assert "(what changed: standardize function)" in capsys.readouterr().out
    assert index.languages == ["other"]

    shutil.copytree(index.path, tmp_path / "old")
    shutil.rmtree(folder.parent)
    fake.write_dataset(tmp_path, lengths=(1, 1))
    shutil.copytree(tmp_path / "old", folder / "vla_index" / "metaworld")
    assert fake.open_index(folder).num_steps == 4
    assert "shards (names or sizes)" in capsys.readouterr().out


def test_what_a_killed_build_left_beside_a_valid_index_is_removed(
    tmp_path, monkeypatch
):
    folder = fake.write_dataset(tmp_path)
    calls = []
    fingerprint = build_module.fingerprint

    def count(*args):
        calls.append(args)
        return fingerprint(*args)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(index_module, "fingerprint", count)
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "remove_staging", killed)
        with pytest.raises(KeyboardInterrupt):
            fake.open_index(folder)
    parent = folder / "vla_index"
    assert len(list(parent.glob(".metaworld.building-*"))) == 1
    assert fake.open_index(folder).num_episodes == 4
    assert sorted(path.name for path in parent.iterdir()) == [
        ".metaworld.lock",
        "metaworld",
    ]
    assert len(calls) == 2  # once for every time it is opened, built or not


def test_a_read_only_data_set_is_indexed_in_the_cache(tmp_path, monkeypatch):
    folder = fake.write_dataset(tmp_path / "data")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index = fake.open_index(folder)
    assert index.path.is_relative_to(tmp_path / "cache" / "vla_jax")
    assert not (folder / "vla_index").exists()


def test_a_foreign_folder_is_not_replaced(folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="not empty and no index"):
        fake.open_index(folder, out=tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_missing_camera_lists_the_images(folder, tmp_path):
    spec = dataclasses.replace(SPEC, cameras={"primary": "steps/observation/front"})
    message = r"'primary'.*'steps/observation/front'.*'steps/observation/wrist_image'"
    with pytest.raises(ValueError, match=message):
        fake.open_index(folder, spec, out=tmp_path / "index")


def test_an_action_of_the_wrong_width_names_the_episode(folder, tmp_path):
    spec = dataclasses.replace(SPEC, action=("relative", "gripper"))
    message = r"\[\d, 4\]; expected \[\d, 2\].*\(episode 0 of .*fake-.*, at byte 0\)"
    for workers in (1, 2):
        with pytest.raises(ValueError, match=message):
            fake.open_index(folder, spec, out=tmp_path / "index", num_workers=workers)


def test_a_data_set_without_a_train_split_is_refused(tmp_path):
    features = {"action": Tensor(np.float32, (1,))}
    with RLDSWriter(tmp_path, "robot", features) as writer:
        writer.write("all", {"action": np.zeros((1, 1))})
    spec = DatasetSpec("robot", {}, ("absolute",), 1.0, dict)
    with pytest.raises(ValueError, match=r"no split 'train', only \['all'\]"):
        fake.open_index(writer.folder, spec)


def test_a_killed_build_continues(tmp_path):
    folder = fake.write_dataset(tmp_path, lengths=(2,) * 6, shards=6)
    module = tmp_path / "slow.py"
    module.write_text(
        "import dataclasses, time\n"
        "from pathlib import Path\n"
        "from vla_jax.data.standardize import DATASETS\n"
        "LOG = Path(__file__).with_name('log')\n"
        "def slow(raw):\n"
        "    number = round(float(raw.arrays['steps/action'][0, 0]) * 100)\n"
        "    with LOG.open('a') as file:\n"
        "        file.write(f'{number}\\n')\n"
        "    if number == 3 and LOG.with_name('wait').exists():\n"
        "        time.sleep(60)\n"
        "    return DATASETS['metaworld'].standardize(raw)\n"
        "SLOW = dataclasses.replace(DATASETS['metaworld'], standardize=slow)\n"
    )
    wait, log = tmp_path / "wait", tmp_path / "log"
    wait.touch()
    command = [sys.executable, str(ROOT / "launch" / "index.py")]
    command += [f"--data_dir={folder}", f"--spec={module}:SLOW", "--workers=1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while "3\n" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (folder / "vla_index" / "metaworld").exists()

    wait.unlink()
    output = subprocess.check_output(command, cwd=tmp_path, text=True)
    assert "7 episodes, 14 steps" in output
    # Episodes 0 to 2 were done before; 3 was begun, and is done again.
    assert log.read_text().split() == ["0", "1", "2", "3", "3", "4", "5", "6"]
    beside = sorted(path.name for path in (folder / "vla_index").iterdir())
    assert beside == [".metaworld.lock", "metaworld"]


def test_the_command_prints_errors_without_a_traceback(tmp_path):
    command = [sys.executable, str(ROOT / "launch" / "index.py")]
    result = subprocess.run(
        [*command, f"--data_dir={tmp_path}"], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "it is empty" in result.stderr
    assert "Traceback" not in result.stderr


def test_indexing_leaves_tensorflow_alone(folder, tmp_path):
    code = (
        "import sys; from vla_jax.data.index import open_index;"
        "open_index(sys.argv[1], 'metaworld', out=sys.argv[2], progress=False);"
        "assert not {'tensorflow', 'torch', 'jax'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "index")]
    subprocess.run(command, check=True)


def test_an_error_of_a_users_function_names_the_episode(folder, tmp_path):
    def broken(raw):
        return {}["action"]

    spec = dataclasses.replace(SPEC, standardize=broken)
    with pytest.raises(KeyError) as error:
        fake.open_index(folder, spec, out=tmp_path / "index")
    assert "in episode 0 of" in error.value.__notes__[0]


def test_tiny_ranges_are_named_while_indexing(tmp_path, capsys):
    features = {"image": Image(8, 8), "x": Tensor(np.float32, (2,))}
    with RLDSWriter(tmp_path, "still", features) as writer:
        for episode in range(2):
            x = np.array([[episode, 0.5], [3, 0.5]], np.float32)
            images = [fake.image(episode, t) for t in range(2)]
            writer.write("train", {"image": images, "x": x})
    spec = DatasetSpec(
        name="still",
        cameras={"primary": "steps/image"},
        action=("relative", "relative"),
        control_hz=5.0,
        standardize=lambda raw: {
            "proprio": raw.arrays["steps/x"][:, :1],
            "action": raw.arrays["steps/x"],
            "language": ["wait"],
        },
        holdout=0.0,
    )
    fake.open_index(writer.folder, spec)
    warnings = [line for line in capsys.readouterr().out.split("\n") if "Warn" in line]
    assert warnings == [
        "Warning: action dimension 1 of data set 'still' hardly varies, from 0.5 to "
        "0.5: it is normalized to 0."
    ]


def test_the_sketches_of_the_statistics_are_kept(index):
    for key, streaming in index.streaming.items():
        assert streaming.finish().to_json() == index.statistics[key].to_json()


def test_the_command_writes_statistics_for_other_libraries(folder, index, tmp_path):
    command = [sys.executable, str(ROOT / "launch" / "index.py")]
    command += [f"--data_dir={folder}", f"--statistics_out={tmp_path}"]
    for form, file in (("openpi", "norm_stats.json"), ("lerobot", "stats.json")):
        flags = [f"--statistics_format={form}"]
        result = subprocess.run([*command, *flags], capture_output=True, text=True)
        assert f"Wrote {tmp_path / file}" in result.stdout, result.stderr
        mean = read_statistics(tmp_path / file)["action"].mean
        np.testing.assert_array_equal(mean, index.statistics["action"].mean)

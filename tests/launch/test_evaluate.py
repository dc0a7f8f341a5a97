"""The evaluation command, with a stand-in for the policy."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from absl.testing import flagsaver

from tests.serving.fake_policy import SCHEMA, make_policy, serving
from vla_jax.serving.agent import Agent

_FILE = Path(__file__).parents[2] / "launch" / "evaluate.py"


@pytest.fixture(scope="module")
def command():
    """The module of the command; its flags can be defined only once."""
    spec = importlib.util.spec_from_file_location("launch_evaluate", _FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["launch_evaluate"] = module
    spec.loader.exec_module(module)
    if not module.FLAGS.is_parsed():
        module.FLAGS(["evaluate", "--checkpoint=none", "--tasks=none"])
    return module


class _Pusher:
    """Moves the hand forward or not at all; the coffee button lies ahead."""

    cameras = ("primary",)
    image_size = (16, 16)
    execute, ensemble = None, 0.01

    def __init__(self, motion):
        self._motion = motion

    def reset(self, slot, seed):
        pass

    def needs_image(self, slot):
        return False

    def act(self, slots, observations, instructions):
        assert all("coffee" in words or words == "" for words in instructions)
        return np.tile(np.float32([0, self._motion, 0, 0]), (len(slots), 1))


def _checkpoint(folder, steps=(40,)):
    place = folder / "checkpoints"
    for step in steps:
        (place / str(step)).mkdir(parents=True)
        (place / str(step) / "files.json").write_text(f"{folder} {step}")
    (place / "config.json").write_text('{"evaluation": {"horizon": 30}}')
    return str(folder)


def _load(folder, *, step, execute, ensemble, sampling):
    assert step in (40, 60) and execute is None and ensemble == 0.01
    good = "good" in str(folder) and step == 40
    return _Pusher(motion=1.0 if good else 0.0)


def _main(command, monkeypatch, *, load=_load, **flags):
    if importlib.util.find_spec("metaworld") is None:
        pytest.skip("metaworld is not installed")
    monkeypatch.setattr(Agent, "from_checkpoint", load)
    fixed = {
        "tasks": ["coffee-button"],
        "episodes": 2,
        "videos": 0,
        "workers": 1,
        "ensemble": 0.01,
    }
    with flagsaver.flagsaver(**{**fixed, **flags}):
        command.main([])


def test_two_checkpoints_are_compared_on_identical_episodes(
    command, monkeypatch, tmp_path, capsys
):
    names = [_checkpoint(tmp_path / name) for name in ("good", "bad")]
    out = tmp_path / "out"
    _main(command, monkeypatch, checkpoint=names, out=str(out))
    first, second = (
        json.loads((out / place / "evaluation.json").read_text())
        for place in ("first", "second")
    )
    assert [e["seed"] for e in first["episodes"]] == [
        e["seed"] for e in second["episodes"]
    ]
    assert second["mean_success"] == 0
    assert [e["steps"] for e in second["episodes"]] == [30, 30]
    assert first["settings"]["step"] == 40 and first["settings"]["seed"] == 7
    rows = json.loads((out / "comparison.json").read_text())
    assert rows["first"] == f"{names[0]} at step 40"
    wins = first["tasks"]["coffee-button"]["successes"]
    assert rows["tasks"]["all tasks"]["only_first"] == wins
    printed = capsys.readouterr().out
    assert "McNemar" in printed and "95 % interval" in printed


def test_steps_of_one_run_are_compared_with_the_first(command, monkeypatch, tmp_path):
    run = _checkpoint(tmp_path / "good", steps=(40, 60))
    bad = _checkpoint(tmp_path / "bad")
    out, steps = tmp_path / "out", ["40", "latest", "40"]
    _main(command, monkeypatch, checkpoint=[run, run, bad], step=steps, out=str(out))
    names = []
    for name in ("comparison.json", "comparison_third.json"):
        rows = json.loads((out / name).read_text())
        assert rows["tasks"]["all tasks"]["only_first"] > 0
        names.append((rows["first"], rows["second"]))
    first = f"{run} at step 40"
    assert names == [(first, f"{run} at step 60"), (first, f"{bad} at step 40")]


def test_the_default_place_is_beside_the_checkpoint(command, monkeypatch, tmp_path):
    name = _checkpoint(tmp_path / "good")
    _main(command, monkeypatch, checkpoint=[name], episodes=1, blank="language")
    report = tmp_path / "good" / "evaluation" / "evaluation.json"
    assert json.loads(report.read_text())["settings"]["blank"] == "language"


def test_a_server_is_evaluated_like_a_checkpoint(command, monkeypatch, tmp_path):
    names = [_checkpoint(tmp_path / "good")]
    _main(command, monkeypatch, checkpoint=names)
    schema = dataclasses.replace(
        SCHEMA,
        cameras=("primary",),
        image_size=(16, 16),
        proprio_dim=4,
        text_length=20,
        action=("relative",) * 3 + ("gripper",),
    )

    def push(inputs):
        assert inputs["image/primary"].shape[1:] == (1, 16, 16, 3)
        return np.tile(np.float32([0, 1, 0, 0]), (len(inputs["seed"]), 4, 1))

    simulation = {"primary": None, "horizon": 30}
    policy = make_policy(
        push,
        schema=schema,
        execute=3,
        description={"simulation": simulation, "weights_sha256": "abc", "step": 40},
    )
    out = tmp_path / "out"
    with serving(policy) as (_, url):
        _main(
            command,
            monkeypatch,
            checkpoint=None,
            policy_server=url,
            ensemble=None,
            out=str(out),
        )
    reports = [
        json.loads((folder / "evaluation.json").read_text())
        for folder in (tmp_path / "good" / "evaluation", out)
    ]
    assert reports[0]["episodes"] == reports[1]["episodes"]
    assert reports[1]["settings"]["weights"] == "abc"
    assert reports[1]["settings"]["execute"] == 3
    with pytest.raises(SystemExit, match="either --checkpoint or --policy_server"):
        _main(command, monkeypatch, checkpoint=names, policy_server="ws://x:1")


def test_each_checkpoint_is_sampled_in_its_own_way(command, monkeypatch, tmp_path):
    run, out, asked = _checkpoint(tmp_path / "good"), tmp_path / "out", []

    def load(folder, *, sampling, **options):
        asked.append(sampling)
        return _load(folder, sampling=sampling, **options)

    flags = dict(sampling=["", "num_steps=1+clip=2.0"], episodes=1, out=str(out))
    _main(command, monkeypatch, load=load, checkpoint=[run, run], **flags)
    assert asked == [{}, {"num_steps": 1, "clip": 2.0}]
    rows = json.loads((out / "comparison.json").read_text())
    assert rows["second"] == f"{run} at step 40 with num_steps=1+clip=2.0"
    second = json.loads((out / "second" / "evaluation.json").read_text())
    assert second["settings"]["sampling"] == "num_steps=1+clip=2.0"


def test_mistakes_are_one_sentence(command, monkeypatch, tmp_path):
    name = _checkpoint(tmp_path / "good")
    for flags, message in (
        ({"checkpoint": [name], "tasks": ["opn"]}, "Unknown metaworld task 'opn'"),
        ({"checkpoint": [name] * 9}, "9 checkpoints came"),
        ({"checkpoint": [name], "step": ["1", "2"]}, "has 2 values for 1 checkp"),
        ({"checkpoint": [name], "sampling": ["", "a=1"]}, "has 2 values for 1 checkp"),
        ({"checkpoint": [name], "step": ["last"]}, "--step=last is neither"),
        ({"checkpoint": [str(tmp_path / "no")]}, "does not exist"),
    ):
        with pytest.raises(SystemExit, match=message):
            _main(command, monkeypatch, **flags)


def test_recorded_episodes_are_counted(command, monkeypatch, tmp_path, capsys):
    path = tmp_path / "episodes.jsonl"
    lines = [dict(task="a", success=n == 0, chain=[0, n]) for n in range(2)]
    path.write_text("\n".join(map(json.dumps, lines)))
    _main(command, monkeypatch, checkpoint=None, recorded=str(path), out=None)
    assert "average length 1.00" in capsys.readouterr().out
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["chains"]["in_a_row"]["1"]["reached"] == 1
    with pytest.raises(SystemExit, match="Say which tasks to play"):
        _main(command, monkeypatch, checkpoint=["a"], tasks=None)

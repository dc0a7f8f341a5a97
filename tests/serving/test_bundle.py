"""Bundles: what is loaded acts like the run, and what was changed has a name."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.serving.fake_run import write_run
from tests.serving.test_agent import observe
from vla_jax.benchmark.inference import measure_inference
from vla_jax.benchmark.serve import measure_serve
from vla_jax.serving.agent import Agent
from vla_jax.serving.export import export_policy, find_evaluation
from vla_jax.serving.manifest import write_manifest
from vla_jax.serving.policy import Policy
from vla_jax.serving.tensors import read_tensors, write_tensors

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(bundle, tmp_path):
    """A bundle that may be damaged."""
    return shutil.copytree(bundle, tmp_path / "policy")


def chunks(policy, calls=((0, 0), (7, 0), (7, 3))):
    return np.stack(
        [policy.infer(observe(2), "open it", seed=s, call=c) for s, c in calls]
    )


@pytest.fixture(scope="module")
def expected(run):
    return chunks(Policy.from_checkpoint(run, batch_sizes=(1,)))


@pytest.mark.parametrize("program", ["exported", "live"])
def test_a_bundle_acts_like_its_run(bundle, expected, program):
    policy = Policy.load(bundle, program=program, batch_sizes=(1,))
    np.testing.assert_allclose(chunks(policy), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-2  # seeds matter
    assert np.abs(expected[1] - expected[2]).max() > 1e-2  # and so do calls
    assert policy.example_difference() < 1e-5
    assert (policy.execute, policy.ensemble) == (1, None)


def test_the_loader_in_the_docs_runs_any_batch_without_this_library(bundle, tmp_path):
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.S
    )
    (loader,) = [block for block in blocks if "deserialize" in block]
    (tmp_path / "policy").symlink_to(bundle)
    example = read_tensors(bundle / "example.safetensors")
    actions = example.pop("actions")
    code = (
        "import sys, numpy as np\n"
        "for rows in (1, 5):\n"
        "    inputs = dict(np.load('inputs.npz'))\n"
        "    inputs = {k: np.repeat(x, rows, 0) for k, x in inputs.items()}\n"
        f"{textwrap.indent(loader, '    ')}\n"
        "    np.save(f'{rows}.npy', actions)\n"
        "assert program.platforms == ('cpu', 'cuda', 'tpu')\n"
        "assert not {'flax', 'vla_jax'} & {n.split('.')[0] for n in sys.modules}\n"
    )
    np.savez(tmp_path / "inputs.npz", **example)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for rows in (1, 5):
        expected, found = np.repeat(actions, rows, 0), np.load(tmp_path / f"{rows}.npy")
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_serving_a_bundle_loads_neither_flax_nor_data_packages(bundle):
    code = f"""
import sys
from vla_jax.serving.policy import Policy
import vla_jax.serving.server
print(Policy.load({str(bundle)!r}, batch_sizes=(1,)).example_difference() < 1e-5)
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    close, loaded = done.stdout.splitlines()
    assert close == "True"
    unwanted = {"flax", "orbax", "grain", "sentencepiece", "simplejpeg", "tensorflow"}
    assert not unwanted & set(loaded.split())


def test_of_a_mixture_one_robot_is_exported(tmp_path):
    run = write_run(tmp_path / "run", names=("left", "right"))
    with pytest.raises(ValueError, match=r"\['left', 'right'\]; say whose robot"):
        export_policy(run, tmp_path / "policy")
    export_policy(run, tmp_path / "policy", dataset="right", platforms=["tpu"])
    policy = Policy.load(tmp_path / "policy", program="live")
    assert policy.schema.dataset == "right"
    assert [d["name"] for d in policy.description["datasets"]] == ["left", "right"]


def test_an_agent_plays_a_bundle(bundle):
    policy = Policy.load(bundle, batch_sizes=(1,))
    agent = Agent(policy)
    agent.reset(0, seed=4)
    action = agent.act([0], [observe(0)], ["open it"])
    expected = policy.infer(observe(0), "open it", seed=4)[0]
    np.testing.assert_allclose(action[0], expected, atol=1e-6)


def test_the_card_and_the_config_say_where_it_comes_from(bundle):
    card = (bundle / "README.md").read_text()
    assert "| step | 3 of 4, averaged parameters |" in card
    assert "2 episodes, 9 steps" in card and "It was not evaluated" in card
    assert "on cpu" in card and "For cuda, tpu it was lowered, not run." in card
    config = json.loads((bundle / "config.json").read_text())
    assert config["exported"]["jax"] == jax.__version__
    assert config["exported"]["difference"] <= 1e-5
    assert config["provenance"]["seed"] == 5
    assert config["normalization_mapping"]["STATE"] == "MEAN_STD"
    processors = json.loads((bundle / "policy_postprocessor.json").read_text())
    (step,) = processors["steps"]
    arrays = read_tensors(bundle / step["state_file"])
    np.testing.assert_allclose(arrays["action.mean"], [1, 20, 0.5])
    assert step["config"]["normalized_dimensions"] == [True, True, False]


def test_an_evaluation_enters_the_card_only_for_the_same_weights(run, tmp_path):
    folder = run / "checkpoints"
    path = tmp_path / "evaluation.json"
    row = dict(episodes=4, successes=3, success_rate=0.75, interval=[0.3, 0.95])
    settings = dict(
        weights="other", blank="nothing", environment="e", seed=7, execute=1
    )
    report = dict(mean_success=0.75, interval=[0.3, 0.95], tasks={"reach": row})
    report["settings"] = {**settings, "ensemble": None}
    path.write_text(json.dumps(report))
    with pytest.raises(ValueError, match="other weights"):
        find_evaluation(folder, 3, path)
    assert find_evaluation(folder, 3) is None
    listing = (folder / "3" / "files.json").read_bytes()
    report["settings"]["weights"] = hashlib.sha256(listing).hexdigest()[:16]
    path.write_text(json.dumps(report))
    assert find_evaluation(folder, 3, path)["tasks"]["reach"]["successes"] == 3


def test_an_existing_folder_is_not_overwritten(run, bundle):
    with pytest.raises(ValueError, match="exists already"):
        export_policy(run, bundle, platforms=["cpu"])


def test_a_free_model_card_may_be_edited(copy):
    (copy / "README.md").write_text("mine")
    Policy.load(copy)


def test_a_cut_file_is_named_with_its_size(copy):
    path = copy / "model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{size - 9} bytes instead of {size}") as e:
        Policy.load(copy)
    assert "model.safetensors" in str(e.value) and "takes" in str(e.value)


def test_a_changed_weight_is_named(copy):
    weights = read_tensors(copy / "model.safetensors")
    name = "params/head/base/action/bias"
    write_tensors(
        copy / "model.safetensors",
        {**weights, name: weights[name] + 1},
        {"format": "vla_jax"},
    )
    with pytest.raises(ValueError, match=f"changed; {name} has other values"):
        Policy.load(copy)
    write_tensors(copy / "model.safetensors", {**weights, name: weights[name][:4]})
    with pytest.raises(ValueError, match=rf"{name} is float32 \[4\], expected .*\[6\]"):
        Policy.load(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "policy.stablehlo"])
def test_an_edited_or_missing_file_is_named(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(
        ValueError, match=f"{name} is not the file.*content has changed"
    ):
        Policy.load(copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"lacks its file {name}"):
        Policy.load(copy)


def seal(folder):
    """Lists the files anew, as somebody who means to replace one would."""
    names = [
        p.name for p in folder.iterdir() if p.name not in ("README.md", "files.json")
    ]
    write_manifest(folder, names)


def test_weights_that_do_not_fit_the_program_are_named(copy):
    weights = read_tensors(copy / "model.safetensors")
    name = "params/head/base/action/bias"
    weights["params/extra"] = weights.pop(name)
    write_tensors(copy / "model.safetensors", weights)
    seal(copy)
    with pytest.raises(ValueError, match="does not fit the bundle") as error:
        Policy.load(copy)
    assert (
        f"weight {name}: the program takes ((6,), 'float32'), the bundle has none"
        in (str(error.value))
    )


def test_a_program_that_jax_cannot_read_says_what_to_do(copy):
    (copy / "policy.stablehlo").write_bytes(b"not a program")
    seal(copy)
    with pytest.raises(ValueError, match=r"cannot read the program.*program='live'"):
        Policy.load(copy)
    Policy.load(copy, program="live")


def test_plain_parameters_for_another_machine_are_exported_and_refused_here(
    run, bundle, tmp_path
):
    export_policy(run, tmp_path / "policy", platforms=["tpu"], ema=False)
    with pytest.raises(ValueError, match=r"is for \('tpu',\), and this machine has"):
        Policy.load(tmp_path / "policy")
    config = json.loads((tmp_path / "policy" / "config.json").read_text())
    assert "checked_on" not in config["exported"]
    # The plain parameters are half of the averaged ones in this run.
    averaged, plain = (
        read_tensors(folder / "model.safetensors")
        for folder in (bundle, tmp_path / "policy")
    )
    assert averaged.keys() == plain.keys()
    for name in plain:
        np.testing.assert_array_equal(averaged[name], 2 * plain[name])


def test_a_folder_that_is_no_bundle_says_so(tmp_path, copy):
    with pytest.raises(ValueError, match="no policy bundle"):
        Policy.load(tmp_path / "nowhere")
    (copy / "files.json").write_text('{"files": []}')
    with pytest.raises(ValueError, match=r"files.json is damaged"):
        Policy.load(copy)
    with pytest.raises(ValueError, match="Unknown program 'compiled'"):
        Policy.load(copy, program="compiled")


def test_both_benchmarks_give_percentiles_and_rates(bundle):
    rows = measure_inference(bundle, num_calls=3, batch_sizes=(2,))
    rows += measure_serve(bundle, (2,), num_requests=3)
    found = {row.name: row for row in rows}
    for name in (
        "inference/exported_batch2",
        "inference/live_batch2",
        "serve/clients2",
    ):
        low, high = (found[f"{name}_{p}_ms"].value for p in ("p50", "p99"))
        assert 0 < low <= high
    assert found["inference/live_batch2_per_s"].unit == "chunks/s"
    assert found["serve/clients2_requests_per_s"].value > 0
    low, high = (found[f"serve/clients2_{p}_ms"].value for p in ("policy_p50", "p50"))
    assert low < high
    with pytest.raises(ValueError, match="clients"):
        measure_serve(bundle, (0,), num_requests=3)

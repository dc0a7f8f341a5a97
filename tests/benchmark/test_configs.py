"""Configs are read as flags name them, and compared within turns."""

import pytest

from vla_jax.benchmark import configs
from vla_jax.benchmark.peers import peer_of
from vla_jax.benchmark.report import Row


def test_a_list_of_configs_is_split_at_files_and_not_within_variants():
    text = "configs/a.py:flow,debug,configs/b.py,c.py:small"
    assert configs.split_names(text) == [
        "configs/a.py:flow,debug",
        "configs/b.py",
        "c.py:small",
    ]
    assert configs.split_names("") == []


def test_rows_are_named_after_file_and_variant():
    names = ["configs/act.py", "configs/act.py:small"]
    assert configs.label_configs(names) == dict(
        zip(("act", "act:small"), names, strict=True)
    )
    with pytest.raises(ValueError, match=r"a/x\.py and b/x\.py are both called 'x'"):
        configs.label_configs(["a/x.py", "b/x.py"])


def test_overrides_reach_leaves_and_sections():
    config = configs.load_config(
        "configs/act.py:debug",
        [
            "--config.data.image_size=(64, 96)",
            "--config.train.accumulate=2",
            "--config.model.compute=dtype=bfloat16",
        ],
    )
    assert config["data"]["image_size"] == (64, 96)
    assert config["train"]["accumulate"] == 2
    assert config["model"]["compute"] == "dtype=bfloat16"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.data.image_sise=1", "did you mean 'image_size'"),
        ("--config.date.image_size=1", "did you mean 'data'"),
        ("--config.data.chunk", "gives no value"),
    ],
)
def test_overrides_that_lead_nowhere_are_refused(override, message):
    with pytest.raises(ValueError, match=message):
        configs.load_config("configs/act.py:debug", [override])
    with pytest.raises(ValueError, match=r"no config file nowhere\.py"):
        configs.load_config("nowhere.py")


def test_steps_become_rates_and_ratios_of_the_same_turn(monkeypatch, capsys):
    def alternate(jobs, turns, module):
        assert [job["framework"] for job in jobs.values()] == ["jax", "torch", "jax"]
        assert jobs["a/torch"]["config"]["model"]["compute"] == {"dtype": "bfloat16"}
        facts = {"parameters": 7, "images": 6, "gflop": 4.0, "mfu_s": 0.5}
        seconds = {"a": (1.0, 2.0), "a/torch": (2.0, 3.0), "b": (1.0, 1.0)}
        return {
            name: [{"seconds": [s], "peak_mb": 9.0, "facts": facts} for s in values]
            for name, values in seconds.items()
        }

    monkeypatch.setattr(configs, "alternate", alternate)
    plain = configs.load_config(
        "configs/act.py:debug", ["--config.model.compute=dtype=bfloat16"]
    )
    points = configs.load_config("configs/msact.py:debug")
    rows = configs.measure_configs(
        "step", {"a": plain, "b": points}, peers=["torch"], count=1, turns=2
    )
    rows = {row.name: row for row in rows}
    assert "b has no peer in PyTorch" in capsys.readouterr().out
    assert rows["step/a/s"] == Row("step/a/s", 1.5, "s", 2, 1.0, 2.0)
    assert rows["step/a/images_per_s"].high == 6
    assert rows["step/a/mfu"].high == 0.5
    assert rows["step/a/gflop_per_s"].low == 2
    assert "step/a/ratio" not in rows
    assert rows["step/a/torch/ratio"].value == 1.75
    assert rows["step/b/ratio"].low == 0.5


def test_percentiles_are_those_of_a_turn():
    turn = {"seconds": [0.001 * n for n in range(101)], "peak_mb": 9.0, "facts": {}}
    rows = {row.name: row.value for row in configs._inference_rows("x", [turn])}
    assert rows["x/p50_ms"] == pytest.approx(50)
    assert rows["x/p99_ms"] == pytest.approx(99)


def test_policies_with_parts_that_no_peer_has_are_told():
    assert peer_of(configs.load_config("configs/act.py")) == "act"
    assert peer_of(configs.load_config("configs/vit.py")) == "blockwise"
    assert peer_of(configs.load_config("configs/quickstart.py")) == "blockwise"
    for name in ("msact.py", "anchorrefine.py", "quickstart.py:blind"):
        assert peer_of(configs.load_config(f"configs/{name}")) == ""

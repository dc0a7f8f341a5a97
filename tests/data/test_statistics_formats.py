"""Statistics in the files of octo, openpi and LeRobot."""

import json

import numpy as np
import pytest

from tests import fake
from vla_jax.data.source import open_source
from vla_jax.data.statistics import Streaming, normalize
from vla_jax.data.statistics_formats import (
    format_statistics,
    parse_statistics,
    read_statistics,
    write_statistics,
)

OCTO = {
    "action": {
        "mean": [1.0, 2.0],
        "std": [0.5, 0.0],
        "max": [3.0, 2.0],
        "min": [-1.0, 2.0],
        "p99": [2.5, 2.0],
        "p01": [-0.5, 2.0],
    },
    "proprio": {"mean": [0.0], "std": [1.0], "max": [4.0], "min": [-4.0]},
    "num_transitions": 70,
    "num_trajectories": 3,
}
OPENPI = {
    "norm_stats": {
        "state": {"mean": [0.0], "std": [1.0], "q01": [-2.0], "q99": [2.0]},
        "actions": {"mean": [5.0], "std": [2.0], "q01": None, "q99": None},
    }
}
LEROBOT = {
    "observation.images.front": {
        "mean": [[[0.5]], [[0.5]], [[0.5]]],
        "std": [[[0.1]], [[0.1]], [[0.1]]],
        "min": [[[0.0]], [[0.0]], [[0.0]]],
        "max": [[[1.0]], [[1.0]], [[1.0]]],
        "count": [10],
    },
    "observation.state": {
        "min": [-1.0],
        "max": [1.0],
        "mean": [0.25],
        "std": [0.5],
        "count": [12],
        "q01": [-0.9],
        "q10": [-0.5],
        "q50": [0.0],
        "q90": [0.5],
        "q99": [0.9],
    },
    "action": {
        "min": [0.0, 0.0],
        "max": [1.0, 2.0],
        "mean": [0.5, 1.0],
        "std": [0.1, 0.2],
        "count": [12],
    },
}


def _write(path, content):
    path.write_text(json.dumps(content))
    return path


def _statistics():
    action, proprio = Streaming(2), Streaming(1)
    action.update(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))
    proprio.update(np.array([[1.0], [3.0], [5.0]]))
    return {"action": action.finish(), "proprio": proprio.finish()}


def test_octo_is_read(tmp_path):
    stats = read_statistics(_write(tmp_path / "dataset_statistics.json", OCTO))
    action, proprio = stats["action"], stats["proprio"]
    assert (action.count, proprio.count) == (70, 70)
    assert action.q01.tolist() == [-0.5, 2.0]
    assert action.q99.tolist() == [2.5, 2.0]
    assert action.tiny.tolist() == [False, True]
    assert np.isnan(proprio.q01).all()
    # quantile: [-0.5, 2.5] to [-1, 1]
    np.testing.assert_allclose(
        normalize(np.array([[1.75, 2.0]], np.float32), action, "quantile"), [[0.5, 0]]
    )


def test_openvla_names_its_data_sets_and_quantiles(tmp_path):
    action = dict(OCTO["action"], q01=[0.0, 2.0], q99=[1.0, 2.0], mask=[True, False])
    del action["p01"], action["p99"]
    content = {
        "bridge": {"action": action, "num_transitions": 5, "num_trajectories": 1},
        "libero": dict(OCTO),
    }
    path = _write(tmp_path / "a.json", content)
    assert read_statistics(path, dataset="bridge")["action"].q01.tolist() == [0.0, 2.0]
    with pytest.raises(ValueError, match=r"several.*\['bridge', 'libero'\]"):
        read_statistics(path)
    with pytest.raises(ValueError, match="Unknown data set 'brige'; did you mean"):
        read_statistics(path, dataset="brige")
    only = _write(tmp_path / "b.json", {"bridge": content["bridge"]})
    assert read_statistics(only)["action"].count == 5


def test_openpi_is_read_and_what_it_lacks_is_refused_when_needed(tmp_path):
    stats = read_statistics(_write(tmp_path / "norm_stats.json", OPENPI))
    x = np.array([[1.0]], np.float32)
    assert stats["proprio"].q99.tolist() == [2.0]
    assert normalize(x, stats["proprio"], "quantile").tolist() == [[0.5]]
    assert normalize(x, stats["action"], "mean_std").tolist() == [[-2.0]]
    with pytest.raises(ValueError, match="'min_max' needs min and max"):
        normalize(x, stats["proprio"], "min_max")
    with pytest.raises(ValueError, match="'quantile' needs q01 and q99"):
        normalize(x, stats["action"], "quantile")


def test_lerobot_is_read_whatever_else_it_holds(tmp_path):
    stats = read_statistics(_write(tmp_path / "stats.json", LEROBOT))
    assert sorted(stats) == ["action", "proprio"]
    assert stats["proprio"].count == 12
    assert stats["proprio"].q01.tolist() == [-0.9]
    assert stats["action"].max.tolist() == [1.0, 2.0]
    assert np.isnan(stats["action"].q99).all()


def test_each_format_is_written_in_its_own_words():
    stats = _statistics()
    octo = format_statistics(stats, "octo", num_trajectories=2)
    assert (octo["num_transitions"], octo["num_trajectories"]) == (3, 2)
    assert octo["action"]["mean"] == [2.0, 1.0]
    np.testing.assert_allclose(octo["action"]["p99"], [3.96, 1.0])
    openpi = format_statistics(stats, "openpi")["norm_stats"]
    assert sorted(openpi) == ["actions", "state"]
    assert sorted(openpi["state"]) == ["mean", "q01", "q99", "std"]
    lerobot = format_statistics(stats, "lerobot")
    assert lerobot["observation.state"]["count"] == [3]
    assert lerobot["action"]["max"] == [4.0, 1.0]


@pytest.mark.parametrize("form", ["octo", "lerobot"])
def test_what_is_written_is_read_back(form, tmp_path):
    stats = _statistics()
    path = write_statistics(tmp_path / "x", stats, form, num_trajectories=2)
    for key, back in read_statistics(path).items():
        expected = stats[key].to_json() | {"quantile_error": None}
        assert back.to_json() == expected


def test_openpi_is_written_and_read_back_without_min_and_max(tmp_path):
    path = write_statistics(tmp_path, _statistics(), "openpi")
    assert path == tmp_path / "norm_stats.json"
    back = read_statistics(path)["action"]
    assert back.mean.tolist() == [2.0, 1.0]
    assert back.tiny.tolist() == [False, True]
    assert back.to_json()["min"] == [None, None]


def test_missing_fields_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"'action' lacks \['std'\], which octo"):
        parse_statistics({"action": {"mean": [1], "min": [0], "max": [2]}}, "octo")
    with pytest.raises(ValueError, match=r"no 'actions'.*it has \['state'\]"):
        parse_statistics({"norm_stats": {"state": {"mean": [0], "std": [1]}}}, "openpi")
    with pytest.raises(ValueError, match="differ in width"):
        parse_statistics(
            {"norm_stats": {"actions": {"mean": [0, 1], "std": [1]}}}, "openpi"
        )
    with pytest.raises(ValueError, match="octo needs 'min', which the statistics"):
        format_statistics(
            parse_statistics(OPENPI, "openpi"), "octo", num_trajectories=1
        )
    with pytest.raises(ValueError, match="octo needs num_trajectories"):
        format_statistics(_statistics(), "octo")
    with pytest.raises(ValueError, match="Unknown format 'oct'; did you mean 'octo'"):
        format_statistics(_statistics(), "oct")


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(ValueError, match="There is no file"):
        read_statistics(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"x.json: Its keys \['foo'\] are those of no"):
        read_statistics(_write(tmp_path / "x.json", {"foo": {}}))
    (tmp_path / "y.json").write_text("{")
    with pytest.raises(ValueError, match=r"y.json is no JSON"):
        read_statistics(tmp_path / "y.json")


def test_training_can_normalize_by_a_file(tmp_path):
    folder = fake.write_dataset(tmp_path)
    wide = {"mean": [1.0] * 4, "std": [2.0] * 4}
    file = _write(tmp_path / "a.json", {"norm_stats": {"actions": wide, "state": wide}})
    dataset = {"path": str(folder), "spec": "metaworld", "statistics": str(file)}
    config = fake.data_config(
        datasets=(dataset,), normalization={"action": "mean_std", "proprio": "mean_std"}
    )
    source = open_source(config)
    assert source.statistics[0]["action"].mean.tolist() == [1.0] * 4
    stored = source.metadata()["datasets"][0]["statistics"]["proprio"]
    assert (stored["std"], stored["min"]) == ([2.0] * 4, [None] * 4)
    stats = wide | {"min": [0.0] * 4, "max": [3.0] * 4}
    several = {"a": {"action": wide}, "b": {"action": stats, "proprio": stats}}
    other = _write(tmp_path / "b.json", several | {"c": {"action": stats}})
    named = dataset | {"statistics": f"{other}#b"}
    source = open_source(config | {"datasets": (named,)})
    assert source.statistics[0]["action"].max.tolist() == [3.0] * 4
    config["normalization"]["action"] = "min_max"
    with pytest.raises(ValueError, match="needs min and max"):
        open_source(config)
    narrow = {"mean": [1.0], "std": [2.0]}
    _write(file, {"norm_stats": {"actions": narrow, "state": wide}})
    with pytest.raises(ValueError, match=r"action statistics in .* have 1 dimensions"):
        open_source(config)

"""Opening a stream: statistics come from where they are, mistakes are named."""

import json

import pytest

from tests import fake
from vla_jax.data.source import open_source
from vla_jax.data.stream_statistics import read_statistics


@pytest.fixture
def folder(tmp_path):
    return fake.write_dataset(tmp_path, lengths=(3, 5, 4), val_lengths=())


def open_stream(folder, **changes):
    return open_source(fake.data_config(folder, source="stream", **changes))


def test_statistics_and_metadata_are_exactly_those_of_an_index(folder, capsys):
    streamed = open_stream(folder).metadata()
    assert "one pass over the data" in capsys.readouterr().out
    assert open_stream(folder).metadata() == streamed
    assert capsys.readouterr().out == ""  # kept from the first time
    assert not list(folder.rglob("index.json"))
    assert open_source(fake.data_config(folder)).metadata() == streamed


def test_an_index_that_is_there_gives_the_statistics(folder, capsys):
    index = fake.open_index(folder)
    capsys.readouterr()
    source = open_stream(folder)
    assert capsys.readouterr().out == ""
    assert source.statistics[0]["action"].to_json() == (
        index.statistics["action"].to_json()
    )
    assert source.sizes("train") == (index.counts["steps"]["train"],)


def test_statistics_can_be_given(folder, tmp_path):
    index = fake.open_index(folder)
    content = {key: value.to_json() for key, value in index.statistics.items()}
    content["action"]["mean"][0] = 7.0
    file = tmp_path / "statistics.json"
    file.write_text(json.dumps(content))
    dataset = {"path": str(folder), "spec": "metaworld", "statistics": str(file)}
    source = open_stream(folder, datasets=(dataset,))
    assert source.statistics[0]["action"].mean[0] == 7.0
    assert read_statistics(index.path)["action"].mean[0] != 7.0


def test_statistics_that_do_not_fit_are_refused(folder, tmp_path):
    file = tmp_path / "statistics.json"
    dataset = {"path": str(folder), "spec": "metaworld", "statistics": str(file)}
    with pytest.raises(ValueError, match="has no statistics of 'action' and 'proprio'"):
        open_stream(folder, datasets=(dataset,))
    content = fake.open_index(folder).statistics["action"].to_json()
    narrow = {k: v[:2] if isinstance(v, list) else v for k, v in content.items()}
    file.write_text(json.dumps({"action": content, "proprio": narrow}))
    with pytest.raises(ValueError, match=r"have 2 dimensions of proprio.*have 4"):
        open_stream(folder, datasets=(dataset,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "strem"}, "Unknown data.source 'strem'.*stream"),
        ({"stream": {"shufle": 3}}, "Unknown key 'shufle' in data.stream.*shuffle"),
        ({"stream": {"cycle": 0}}, "data.stream.cycle is 0"),
        ({"cameras": ("primry",)}, "No data set has a camera 'primry'"),
        ({"text": {"length": 1, "model": ""}}, "raise data.text.length"),
    ],
)
def test_mistakes_in_the_config_are_named(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        open_source(fake.data_config(folder, **{"source": "stream", **changes}))


def test_the_validation_split_has_no_size(folder):
    with pytest.raises(ValueError, match="size of split 'validation' is not known"):
        open_stream(folder).sizes("validation")

"""What has been seen of each data set is counted exactly."""

import numpy as np
import pytest

from tests import fake
from vla_jax.data.loader import train_batches
from vla_jax.data.seen import Seen, seen_after, to_line, to_row, unique
from vla_jax.data.source import open_source


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    return [
        fake.write_dataset(path, lengths=(2, 1), name="small"),
        fake.write_dataset(path, lengths=(5, 4, 6), name="large"),
    ]


def test_seen_is_what_the_batches_held(folders):
    datasets = tuple(
        {"path": str(folder), "spec": "metaworld", "weight": weight}
        for folder, weight in zip(folders, (1.0, 2.5), strict=True)
    )
    source = open_source(fake.data_config(datasets=datasets, batch_size=4))
    sizes, drawn = source.sizes("train"), []
    assert sizes == (3, 15)
    with train_batches(source, seed=3) as batches:
        for step in range(5):
            entries = seen_after(source, step * source.batch_size)
            for number, entry in enumerate(entries):
                mine = [place[1:] for place in drawn if place[0] == number]
                assert entry.samples == len(mine)
                assert entry.fraction == len(set(mine)) / sizes[number]
                assert entry.epochs == len(mine) / sizes[number]
            batch = next(batches)
            places = (batch[key].tolist() for key in ("dataset", "episode", "step"))
            drawn += zip(*places, strict=True)
    assert [entry.name for entry in entries] == ["metaworld", "metaworld-2"]
    assert entries[0].fraction == 1 > entries[1].fraction


def test_streams_are_counted_for_all_hosts_together(folders):
    pytest.importorskip("tensorflow")
    config = fake.data_config(*folders, batch_size=4, source="stream")
    source = open_source(config)
    for num_hosts in (1, 2):
        entries = seen_after(source, 24, num_hosts)
        np.testing.assert_array_equal([e.samples for e in entries], [12, 12])
        np.testing.assert_allclose([e.epochs for e in entries], [4, 0.8])
        np.testing.assert_allclose([e.fraction for e in entries], [1, 0.8])


def test_the_log_has_numbers_and_the_terminal_one_line():
    entries = [Seen("bridge", 120, 1.0, 2.5), Seen("kuka", 80, 0.025, 0.025)]
    assert to_row(entries) == {
        "data/bridge/samples": 120,
        "data/bridge/seen": 1.0,
        "data/bridge/epochs": 2.5,
        "data/kuka/samples": 80,
        "data/kuka/seen": 0.025,
        "data/kuka/epochs": 0.025,
    }
    line = "2.5% of kuka (0.025 epochs), 100.0% of bridge (2.5 epochs)"
    assert to_line(entries) == f"seen: {line}"
    assert to_line(entries * 3) == (
        "seen of 6 data sets: from 2.5% of kuka (0.025 epochs) to 100.0% of bridge "
        "(2.5 epochs)"
    )


def test_equal_names_are_numbered():
    assert unique(["a", "b", "a", "a"]) == ["a", "b", "a-2", "a-3"]

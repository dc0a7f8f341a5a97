"""However many shards there are, few are open; and a mixture costs no threads."""

import gc
import json
import os
import resource
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests import fake
from vla_jax.benchmark.mixture import copy_linked
from vla_jax.data.open_files import LocalFile, OpenFiles, limit

NUM_DATASETS = 60


class File:
    def __init__(self, number):
        self.number = number


def test_the_file_used_longest_ago_gives_way():
    files, opened = OpenFiles(2), []

    def opener(number):
        opened.append(number)
        return File(number)

    for number in (0, 1, 0, 2, 0, 1):
        assert files.get(7, number, opener).number == number
    assert opened == [0, 1, 2, 1]


def test_owners_do_not_share_files_and_can_be_forgotten():
    files = OpenFiles(4)
    one, two = (files.get(owner, 0, File) for owner in (1, 2))
    assert one is not two
    files.forget(1)
    assert files.get(2, 0, File) is two
    assert files.get(1, 0, File) is not one


def test_a_file_in_use_outlives_its_place(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(b"0123456789")
    files = OpenFiles(1)
    file = files.get(0, 0, lambda number: LocalFile(str(path)))
    files.get(0, 1, File)
    assert file.read(3, 4) == b"3456"
    descriptor = file._descriptor
    del file
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_threads_may_ask_at_the_same_time():
    files, wrong = OpenFiles(3), []

    def ask(seed):
        for number in np.random.default_rng(seed).integers(0, 8, 2000).tolist():
            if files.get(0, number, File).number != number:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_limit_leaves_files_for_others():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 1 <= limit() <= max(soft // 2, 1)


def test_an_index_that_is_gone_has_no_file_open(tmp_path):
    index = fake.open_index(fake.write_dataset(tmp_path))
    index.read_image("primary", 0)
    shard = str(tmp_path)

    def open_shards():
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return [os.readlink(link) for link in links if os.path.exists(link)]

    assert any(name.startswith(shard) and "tfrecord" in name for name in open_shards())
    del index
    gc.collect()
    assert not any("tfrecord" in n for n in open_shards() if n.startswith(shard))


def held_with_100_files(config):
    code = (
        "import json, resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "from vla_jax.benchmark.mixture import hold\n"
        f"print(json.dumps(hold({config!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_sixty_data_sets_cost_no_thread_and_fit_in_few_open_files(tmp_path):
    # 60 data sets of 6 shards, in a process that may have 100 files open.
    folder = fake.write_dataset(tmp_path / "one", lengths=(2,) * 5, shards=5)
    fake.open_index(folder)
    copies = [str(copy_linked(folder, tmp_path / str(n))) for n in range(NUM_DATASETS)]
    config = fake.data_config(*copies, batch_size=60, num_threads=2, prefetch=2)
    few, many = (
        held_with_100_files({**config, "datasets": config["datasets"][:count]})
        for count in (1, NUM_DATASETS)
    )
    assert many["threads"] == few["threads"]
    assert many["files"] <= 100
    assert many["rss_mb"] - few["rss_mb"] < 20 * (NUM_DATASETS - 1)

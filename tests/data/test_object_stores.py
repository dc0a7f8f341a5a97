"""Data sets in object stores: gs:// and s3:// stand for stores in memory here."""

import sys

import fsspec
import jax
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests import fake
from vla_jax.data import build, read_ahead, remote
from vla_jax.data.cache import default_cache
from vla_jax.data.index import open_index
from vla_jax.data.loader import train_batches
from vla_jax.data.mixtures import expand_mixtures
from vla_jax.data.source import open_source


@pytest.fixture(params=["gs", "s3"])
def bucket(request, tmp_path, monkeypatch):
    """An empty bucket, its URL, with the caches in a folder of this test."""
    monkeypatch.setenv("VLA_JAX_CACHE", str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    protocol = request.param
    store = type("Store", (MemoryFileSystem,), {"protocol": protocol, "store": {}})
    store.pseudo_dirs = [""]
    registry = sys.modules["fsspec.registry"]._registry
    monkeypatch.setitem(registry, protocol, store)
    default_cache.cache_clear()
    yield f"{protocol}://bucket"
    default_cache.cache_clear()


def upload(folder, url):
    """Copies a data set into a bucket, to `<url>/<name>/<version>`."""
    system, path = fsspec.core.url_to_fs(url)
    for file in folder.iterdir():
        if file.is_file():
            place = f"{path}/{folder.parent.name}/{folder.name}/{file.name}"
            system.pipe_file(place, file.read_bytes())
    return f"{url}/{folder.parent.name}/{folder.name}"


def test_training_from_a_bucket_gives_the_batches_of_the_disk(tmp_path, bucket):
    folder = fake.write_dataset(tmp_path / "data", lengths=(3, 5, 4))
    address = upload(folder, bucket)
    one, two = (open_source(fake.data_config(p)) for p in (address, folder))
    assert one.metadata() == two.metadata()
    with train_batches(one, seed=0) as a, train_batches(two, seed=0) as b:
        for _ in range(6):
            x, y = (jax.tree.leaves(next(batches)) for batches in (a, b))
            jax.tree.map(np.testing.assert_array_equal, x, y)
    assert not list((tmp_path / "data").rglob("blocks"))


def test_a_folder_above_is_searched_and_shards_need_no_lengths(
    tmp_path, bucket, monkeypatch
):
    folder = fake.write_dataset(tmp_path / "data")
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"shardLengths"', '"unknown"'))
    upload(folder, bucket)
    monkeypatch.setattr(read_ahead, "PART", 300)  # many parts in each record
    index = open_index(bucket, "metaworld", progress=False, num_workers=1)
    expected = fake.open_index(folder)
    assert index.num_steps == expected.num_steps
    np.testing.assert_array_equal(index.record, expected.record)
    assert index.read_image("wrist", 3) == expected.read_image("wrist", 3)


def test_indexing_never_asks_for_a_whole_shard(tmp_path, bucket, monkeypatch):
    folder = fake.write_dataset(tmp_path / "data", image_size=64)
    address = upload(folder, bucket)
    sizes, fetch = [], remote.RemoteFile._fetch

    def counted(file, start, stop):
        if "tfrecord" in file.url:
            sizes.append(stop - start)
        return fetch(file, start, stop)

    monkeypatch.setattr(remote.RemoteFile, "_fetch", counted)
    monkeypatch.setattr(read_ahead, "PART", 512)
    open_index(address, "metaworld", progress=False, num_workers=1)
    total = sum(s for s in build.file_sizes([str(p) for p in folder.glob("*tfrec*")]))
    assert max(sizes) <= 512 and sum(sizes) == total


def test_a_mixture_is_found_in_a_bucket(tmp_path, bucket):
    for name in ("bridge_orig", "fractal20220817_data"):
        upload(fake.write_dataset(tmp_path / "data", name=name), bucket)
    entry = dict(mixture="bridge_rt_1", data_dir=bucket)
    found = [dataset["path"] for dataset in expand_mixtures((entry,))]
    assert found == [f"{bucket}/bridge_orig", f"{bucket}/fractal20220817_data"]


@pytest.mark.parametrize(("protocol", "package"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_missing_package_is_named(protocol, package, monkeypatch):
    def missing(url, **options):
        raise ImportError(f"Please install {package}")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    url = f"{protocol}://bucket/data"
    with pytest.raises(
        ImportError, match=rf"{url}.*without {package}.*pip install {package}"
    ):
        remote.RemotePath(url).exists()


def test_an_unknown_protocol_is_named():
    with pytest.raises(ValueError, match="protocol 'gss'; did you mean 'gs'"):
        remote.RemotePath("gss://bucket/data").exists()

"""A checkpoint and its bundle, made once for all tests of a worker."""

import pytest

from tests.serving.fake_run import NoisyHead, write_run
from vla_jax.models.build import MODULES
from vla_jax.serving.export import export_policy


@pytest.fixture(scope="session", autouse=True)
def noisy_head():
    """A model whose samples are random, known by name."""
    MODULES["noisy"] = NoisyHead
    yield
    del MODULES["noisy"]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("serving") / "run")


@pytest.fixture(scope="session")
def bundle(run):
    """Only to be read."""
    export_policy(run, run.parent / "policy")
    return run.parent / "policy"

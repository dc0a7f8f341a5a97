"""LIBERO's files are read without torch, questions on stdin or foreign code."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from vla_jax.simulation.libero import package
from vla_jax.simulation.libero.package import instruction_of


def _write(path, value):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("archive/version", "3")
    return path


def test_initial_states_are_read_from_the_archive(tmp_path):
    states = np.arange(12, dtype=np.float64).reshape(4, 3)
    found = package.read_initial_states(_write(tmp_path / "a.pruned_init", states))
    np.testing.assert_array_equal(found, states)


class _Evil:
    def __reduce__(self):
        return os.system, ("false",)


def test_code_in_a_file_of_states_is_refused(tmp_path):
    path = _write(tmp_path / "evil.pruned_init", _Evil())
    with pytest.raises(ValueError, match=r"evil\.pruned_init .*to load \w+.system"):
        package.read_initial_states(path)


def test_a_truncated_file_of_states_is_named(tmp_path):
    path = _write(tmp_path / "short.pruned_init", np.zeros((2, 2)))
    os.truncate(path, 50)
    with pytest.raises(ValueError, match=r"short\.pruned_init"):
        package.read_initial_states(path)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = _write(tmp_path / "list.pruned_init", [1, 2])
    with pytest.raises(ValueError, match="holds list; expected an array"):
        package.read_initial_states(path)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package folder like hf-libero's, without assets."""
    folder = tmp_path / "site" / "libero" / "libero"
    folder.mkdir(parents=True)
    monkeypatch.setattr(package, "root", lambda: folder)
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(package.importlib.metadata, "version", lambda name: "1.4.0")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    # Remembered by monkeypatch, so that what `prepare` sets is taken back.
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path / "home" / ".libero"))
    return folder


def test_missing_assets_say_how_to_get_them(installed):
    with pytest.raises(RuntimeError, match="Download them once"):
        package.prepare()


def test_missing_packages_say_how_to_get_them(installed, monkeypatch):
    monkeypatch.setattr(
        package.importlib.util, "find_spec", lambda name: name != "bddl" or None
    )
    with pytest.raises(RuntimeError, match=r"needs bddl, not installed; run `pip"):
        package.prepare()


def test_another_robosuite_is_refused(installed, monkeypatch):
    monkeypatch.setattr(package.importlib.metadata, "version", lambda name: "1.5.2")
    with pytest.raises(RuntimeError, match=r"robosuite is 1\.5\.2.*1\.4\.0; run"):
        package.prepare()


def test_a_configuration_is_written_where_there_is_none(installed, tmp_path):
    (installed / "assets").mkdir()
    package.prepare()
    folder = tmp_path / "home" / ".cache" / "vla_jax" / "libero"
    assert os.environ["LIBERO_CONFIG_PATH"] == str(folder)
    lines = (folder / "config.yaml").read_text().splitlines()
    assert f"bddl_files: {installed / 'bddl_files'}" in lines


def test_the_users_configuration_stays(installed, tmp_path):
    (installed / "assets").mkdir()
    own = tmp_path / "home" / ".libero"
    own.mkdir(parents=True)
    (own / "config.yaml").write_text("mine")
    package.prepare()
    assert (own / "config.yaml").read_text() == "mine"
    assert os.environ["LIBERO_CONFIG_PATH"] == str(own)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("pick_up_the_milk_and_place_it", "pick up the milk and place it"),
        ("KITCHEN_SCENE10_close_the_top_drawer", "close the top drawer"),
        ("LIVING_ROOM_SCENE2_put_both_the_cans", "put both the cans"),
    ],
)
def test_the_instruction_is_the_name_without_the_scene(task, expected):
    assert instruction_of(task) == expected

"""Choice of the OpenGL backend, with the machine's answers replaced."""

import runpy
import sys

import pytest

from vla_jax.simulation import gl


@pytest.fixture
def machine(monkeypatch):
    """A Linux machine on which nothing is chosen yet and MuJoCo is not imported."""
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    monkeypatch.setattr(gl.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(gl.platform, "system", lambda: "Linux")
    monkeypatch.setattr(gl, "_can_install", lambda: False)
    monkeypatch.setattr(gl, "gpu_visible", lambda: False)
    return monkeypatch


def test_a_choice_already_made_is_kept(machine):
    machine.setenv("MUJOCO_GL", "osmesa")
    machine.setattr(gl, "_library_found", lambda backend: True)
    assert gl.ensure_gl() == "osmesa"


def test_a_choice_without_its_library_names_the_command(machine):
    machine.setenv("MUJOCO_GL", "osmesa")
    machine.setattr(gl, "_library_found", lambda backend: False)
    with pytest.raises(RuntimeError, match=r"apt-get install.*libosmesa6"):
        gl.ensure_gl()


def test_a_missing_simulator_names_the_extra(machine):
    machine.setattr(gl.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip install 'vla_jax\[sim\]'"):
        gl.ensure_gl()


@pytest.mark.parametrize(("gpu", "expected"), [(True, "egl"), (False, "osmesa")])
def test_egl_is_preferred_only_where_a_gpu_is_visible(machine, gpu, expected):
    machine.setattr(gl, "gpu_visible", lambda: gpu)
    machine.setattr(gl, "_reason_it_fails", lambda backend: None)
    assert gl.ensure_gl() == expected
    assert gl.os.environ["MUJOCO_GL"] == expected


def test_a_backend_that_cannot_make_a_context_is_passed_over(machine):
    machine.setattr(gl, "gpu_visible", lambda: True)
    machine.setattr(
        gl, "_reason_it_fails", lambda b: "no display" if b == "egl" else None
    )
    assert gl.ensure_gl() == "osmesa"


def test_the_library_is_installed_where_this_is_allowed(machine):
    installed = []
    machine.setattr(gl, "_can_install", lambda: True)
    machine.setattr(gl, "_install", installed.append)
    machine.setattr(
        gl, "_reason_it_fails", lambda b: None if b in installed else "missing"
    )
    assert gl.ensure_gl() == "osmesa"
    assert installed == ["osmesa"]


def test_otherwise_the_error_holds_the_one_command_and_the_reasons(machine):
    machine.setattr(gl, "_reason_it_fails", lambda backend: f"{backend} is missing")
    with pytest.raises(RuntimeError, match=r"osmesa is missing.*apt-get install"):
        gl.ensure_gl()


def test_the_command_line_prints_the_message_without_a_traceback(machine):
    machine.setenv("MUJOCO_GL", "egl")
    machine.setattr("ctypes.util.find_library", lambda name: None)
    machine.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(gl.__file__, run_name="__main__")
    assert stop.value.code == (
        "MUJOCO_GL is 'egl', but libEGL is not installed. Install it with "
        "`sudo apt-get update && sudo apt-get install -y --no-install-recommends "
        "libegl1`, or unset MUJOCO_GL."
    )


def test_a_choice_after_the_import_of_mujoco_is_refused(machine):
    machine.setitem(sys.modules, "mujoco", object())
    with pytest.raises(RuntimeError, match="before an OpenGL backend was chosen"):
        gl.ensure_gl()

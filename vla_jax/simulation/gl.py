"""Off-screen rendering: find an OpenGL library that works, before MuJoCo is imported.

MuJoCo reads `MUJOCO_GL` once, when it is imported, so the choice is made first and
kept in the environment, where worker processes inherit it. EGL renders on a GPU,
OSMesa on the processor; pictures of the two differ by a few grey levels.

    python -m vla_jax.simulation.gl

chooses, installs OSMesa where it may, and otherwise prints the command that helps.
"""

import ctypes.util
import glob
import importlib.util
import os
import platform
import shutil
import subprocess
import sys

LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
PACKAGES = {"egl": "libegl1", "osmesa": "libosmesa6"}

_PROBE = "import mujoco; mujoco.GLContext(16, 16).make_current()"


def ensure_gl(*, install: bool = True) -> str:
    """Chooses the off-screen OpenGL backend of this process and of its children.

    A `MUJOCO_GL` that is already set is respected. Otherwise the first backend that
    can really make a context is taken: EGL before OSMesa where a GPU is visible,
    OSMesa before EGL elsewhere.

    Args:
        install: fetch OSMesa with apt-get when nothing works and this process may
            (root on Debian or Ubuntu).

    Returns:
        The backend, as `MUJOCO_GL` now says: usually "egl" or "osmesa".

    Raises:
        RuntimeError: nothing renders, or MuJoCo is missing; the message holds the
            command that helps.
    """
    if importlib.util.find_spec("mujoco") is None:
        raise RuntimeError(
            "MuJoCo is not installed; install the simulators with "
            "`pip install 'vla_jax[sim]'`."
        )
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    if chosen:
        if chosen in LIBRARIES and not _library_found(chosen):
            raise RuntimeError(
                f"MUJOCO_GL is '{chosen}', but lib{LIBRARIES[chosen]} is not "
                f"installed. Install it with `{_install_command(chosen)}`, or unset "
                "MUJOCO_GL."
            )
        return chosen
    if platform.system() != "Linux":
        # MuJoCo brings its own off-screen context on macOS and Windows.
        return _select("cgl" if platform.system() == "Darwin" else "wgl")
    if "mujoco" in sys.modules:
        raise RuntimeError(
            "MuJoCo was imported before an OpenGL backend was chosen; call "
            "vla_jax.simulation.gl.ensure_gl() first, or set MUJOCO_GL=osmesa."
        )
    order = ("egl", "osmesa") if gpu_visible() else ("osmesa", "egl")
    reasons = []
    for backend in order:
        reason = _reason_it_fails(backend)
        if reason is None:
            return _select(backend)
        reasons.append(f"{backend}: {reason}")
    if install and _can_install():
        _install("osmesa")
        reason = _reason_it_fails("osmesa")
        if reason is None:
            return _select("osmesa")
        reasons.append(f"osmesa, after installing it: {reason}")
    raise RuntimeError(
        "No OpenGL library for off-screen rendering works "
        f"({'; '.join(reasons)}). Install one with `{_install_command('osmesa')}`."
    )


def gpu_visible() -> bool:
    """Whether a GPU that EGL could render on is visible to this process."""
    return bool(
        glob.glob("/dev/nvidia[0-9]*")
        or any(os.access(p, os.R_OK | os.W_OK) for p in glob.glob("/dev/dri/render*"))
    )


def _select(backend: str) -> str:
    os.environ["MUJOCO_GL"] = backend
    return backend


def _library_found(backend: str) -> bool:
    return ctypes.util.find_library(LIBRARIES[backend]) is not None


def _reason_it_fails(backend: str) -> str | None:
    """Makes a context in a process of its own: a broken driver may crash."""
    if not _library_found(backend):
        return f"lib{LIBRARIES[backend]} is not installed"
    environment = {**os.environ, "MUJOCO_GL": backend}
    environment.pop("PYOPENGL_PLATFORM", None)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return "no context within 120 s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the probe ended with {done.returncode}"


def _install_command(backend: str) -> str:
    sudo = "" if os.geteuid() == 0 else "sudo "
    return (
        f"{sudo}apt-get update && {sudo}apt-get install -y "
        f"--no-install-recommends {PACKAGES[backend]}"
    )


def _can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _install(backend: str) -> None:
    command = _install_command(backend)
    print(f"No OpenGL library for off-screen rendering; running `{command}`.")
    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"`{command}` failed: {done.stderr.strip()[-500:]}\n"
            "Run it by hand, then start again."
        )


if __name__ == "__main__":
    try:
        ensure_gl()
    except RuntimeError as error:
        sys.exit(str(error))

"""The installed hf-libero package: where its files lie, without importing torch.

`import libero.libero` asks questions on stdin and its benchmark module imports torch;
neither may happen in a worker process. What is needed is read from the files instead.
"""

import functools
import importlib.metadata
import importlib.util
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vla_jax.names import did_you_mean

# Together they would pull in torch, wandb and more, which nothing here needs.
_INSTALL = (
    "pip install 'vla_jax[libero]' && "
    "pip install --no-deps hf-libero==0.1.4 robosuite==1.4.0 bddl==1.0.1"
)
_NEEDED = ("robosuite", "bddl", "cv2", "numba", "easydict", "future", "cloudpickle")
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


@functools.cache
def root() -> Path:
    """The folder with `bddl_files`, `init_files` and `assets`.

    Raises:
        RuntimeError: LIBERO is not installed; says how to install it.
    """
    spec = importlib.util.find_spec("libero")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"LIBERO is not installed; run `{_INSTALL}`.")
    return Path(next(iter(spec.submodule_search_locations))) / "libero"


def prepare() -> None:
    """Makes `import libero.libero` silent and checks that the assets are there.

    A configuration that the user has made is left as it is.

    Raises:
        RuntimeError: LIBERO is not installed, or its meshes and textures are
            missing; says how to get them.
    """
    folder = root()
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"LIBERO needs {', '.join(missing)}, not installed; run `{_INSTALL}`."
        )
    version = importlib.metadata.version("robosuite")
    if not version.startswith("1.4."):
        raise RuntimeError(
            f"robosuite is {version}, LIBERO needs 1.4.0; run `{_INSTALL}`."
        )
    if not any(path.is_dir() for path in _asset_folders()):
        raise RuntimeError(
            f"LIBERO's meshes and textures are not in {folder / 'assets'}; the package "
            "comes without them. Download them once (about 206 MB) with `pip install "
            "huggingface_hub && python -m vla_jax.simulation.libero.package`, or link "
            "the folder libero/libero/assets of a copy of the LIBERO repository there."
        )
    _configure()


def _asset_folders() -> tuple[Path, Path]:
    """Where the package looks for its assets: beside its code, then in its cache."""
    return root() / "assets", Path("~/.cache/libero/assets").expanduser()


def _configure() -> None:
    """Points LIBERO to a configuration, so that it does not ask for one."""
    folder = root()
    config = Path(os.environ.get("LIBERO_CONFIG_PATH", "~/.libero")).expanduser()
    if (config / "config.yaml").exists():
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    config = cache / "vla_jax" / "libero"
    config.mkdir(parents=True, exist_ok=True)
    lines = {
        "assets": folder / "assets",
        "bddl_files": folder / "bddl_files",
        "benchmark_root": folder,
        "datasets": folder.parent / "datasets",
        "init_states": folder / "init_files",
    }
    # Written aside and renamed: workers start at the same time.
    partial = config / f"config.{os.getpid()}.partial"
    partial.write_text("".join(f"{key}: {path}\n" for key, path in lines.items()))
    partial.rename(config / "config.yaml")
    os.environ["LIBERO_CONFIG_PATH"] = str(config)


@functools.cache
def suites() -> Mapping[str, tuple[str, ...]]:
    """Suite -> names of its tasks in the published order."""
    path = root() / "benchmark" / "libero_suite_task_map.py"
    spec = importlib.util.spec_from_file_location("_libero_task_map", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: tuple(tasks) for name, tasks in module.libero_task_map.items()}


def suite_of(task: str) -> str:
    """The suite that a task belongs to.

    Raises:
        ValueError: no suite has it; similar names are listed.
    """
    for suite, tasks in suites().items():
        if task in tasks:
            return suite
    known = [task for tasks in suites().values() for task in tasks]
    raise ValueError(f"Unknown libero task '{task}'; {did_you_mean(task, known)}")


def instruction_of(task: str) -> str:
    """The published instruction of a task, which is its name without the scene."""
    words = task.split("_")
    if task[0].isupper():
        last = max(i for i, word in enumerate(words) if word.startswith("SCENE"))
        words = words[last + 1 :]
    return " ".join(words)


def bddl_file(task: str) -> Path:
    """The file that describes scene and goal of a task."""
    return root() / "bddl_files" / suite_of(task) / f"{task}.bddl"


def initial_states(task: str) -> Path:
    """The file with the fixed initial states of a task."""
    return root() / "init_files" / suite_of(task) / f"{task}.pruned_init"


def read_initial_states(path: Path) -> np.ndarray:
    """Reads the fixed initial states of a task, f64 `[states, size]`.

    The file is a zip archive with a pickle. Only what builds a numpy array is let
    through, so that a file from elsewhere cannot run code.

    Raises:
        ValueError: the file is damaged or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            with archive.open(name) as file:
                states = _ArrayUnpickler(file).load()
    except (zipfile.BadZipFile, StopIteration, pickle.UnpicklingError, EOFError) as e:
        raise ValueError(f"{path} is no file of initial states: {e}") from e
    if not isinstance(states, np.ndarray) or states.ndim != 2:
        raise ValueError(f"{path} holds {type(states).__name__}; expected an array.")
    return states


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return super().find_class(module, name)


def _download() -> None:
    """Downloads the assets by the package's own command."""
    _configure()
    from libero.libero.utils.download_utils import download_assets_from_huggingface

    print(download_assets_from_huggingface())


if __name__ == "__main__":
    _download()

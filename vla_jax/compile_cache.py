"""Compiled programs kept on disk, so that a restart need not compile again."""

from pathlib import Path

import jax


def use_compile_cache(folder: str | Path) -> None:
    """Keeps compiled programs in `folder`, for this process and those after it.

    What lies there is run without a check, so the folder must be one's own.
    """
    jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

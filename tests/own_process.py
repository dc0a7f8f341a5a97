"""Tests that render run in a process of their own.

OSMesa and TensorFlow each bring an LLVM. Loaded into one process they end it with a
segmentation fault, and other tests of the same session import TensorFlow.
"""

import functools
import inspect
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def in_own_process(test):
    """Makes a test without fixtures run in a new interpreter, with its output shown."""
    assert not inspect.signature(test).parameters, "fixtures do not travel"
    module = ".".join(Path(inspect.getfile(test)).relative_to(_ROOT).parts)
    code = (
        f"from {module.removesuffix('.py')} import {test.__name__} as test\n"
        "test.__wrapped__()"
    )

    @functools.wraps(test)
    def run():
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    return run

"""The commands that export and serve, as a user runs them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vla_jax.client.connection import Connection, ServerError
from vla_jax.serving.policy import Policy

ROOT = Path(__file__).parents[2]


def export(*arguments):
    """Runs launch/export.py in a process that knows the model of the tests."""
    code = (
        "import runpy, sys\n"
        "from tests.serving.fake_run import NoisyHead\n"
        "from vla_jax.models.build import MODULES\n"
        "MODULES['noisy'] = NoisyHead\n"
        f"sys.argv = ['export', *{list(arguments)!r}]\n"
        "runpy.run_path('launch/export.py', run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )


def test_a_run_is_exported_and_mistakes_are_one_sentence(run, tmp_path):
    out = tmp_path / "policy"
    wanted = (f"--checkpoint={run}", f"--out={out}", "--execute=2", "--platforms=tpu")
    done = export(*wanted)
    assert done.returncode == 0, done.stderr
    assert "step 3" in done.stdout and "lowered only" in done.stdout
    assert Policy.load(out, program="live").execute == 2
    for arguments, message in (
        (wanted, "exists already"),
        ((f"--checkpoint={tmp_path}", f"--out={tmp_path / 'x'}"), "No checkpoint in"),
    ):
        done = export(*arguments)
        assert done.returncode == 1 and message in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ")


def test_the_command_serves_a_bundle_and_ends_on_sigterm(bundle, tmp_path):
    key = tmp_path / "key"
    key.write_text("secret\n")
    command = [sys.executable, "launch/serve.py", f"--policy={bundle}", "--port=0"]
    command += ["--host=127.0.0.1", f"--api_key_file={key}", "--max_batch=1"]
    command += ["--compile_cache="]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        lines = iter(process.stdout.readline, "")
        line = next(text for text in lines if text.startswith("Serving"))
        with Connection(line.split()[-1], api_key="secret") as client:
            image = np.zeros((20, 30, 3), np.uint8)
            observation = {
                "image": dict.fromkeys(client.metadata["schema"]["cameras"], image),
                "proprio": np.zeros(4),
                "prompt": "open the drawer",
            }
            assert client.infer(observation)["actions"].shape == (2, 3)
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ServerError, match="1001"):
                while True:
                    client.infer(observation)
        assert process.wait(30) == 0
        assert "Stopped after" in process.stdout.read()
    finally:
        process.kill()
        process.stdout.close()


def test_mistakes_at_the_start_are_one_sentence(bundle, tmp_path):
    for arguments, message in (
        ([f"--policy={tmp_path}"], "error: "),
        ([f"--policy={bundle}", "--layout=lbero"], "Unknown layout 'lbero'"),
    ):
        done = subprocess.run(
            [sys.executable, "launch/serve.py", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and message in done.stderr
        assert "Traceback" not in done.stderr

"""The published openpi-client, unchanged, talks to the server.

It wants NumPy below 2, so it lives in an environment of its own: `make test` builds
`.venv-openpi` and names it in OPENPI_PYTHON, and then a missing client is a failure.
Without that variable and that folder the test is skipped.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.serving.fake_policy import make_policy, serving
from vla_jax.client.layouts import LAYOUTS

HERE = Path(__file__).parent
LOCAL = HERE.parents[1] / ".venv-openpi" / "bin" / "python"


@pytest.fixture
def python():
    named = os.environ.get("OPENPI_PYTHON")
    if named:
        assert Path(named).exists(), f"OPENPI_PYTHON={named} does not exist"
        return named
    if not LOCAL.exists():
        pytest.skip(
            "openpi-client is not installed: run `make .venv-openpi/.installed`"
        )
    return str(LOCAL)


def test_the_published_client_gets_actions_chunks_and_readable_errors(python):
    with serving(make_policy(), layout=LAYOUTS["libero"], api_key="key") as (server, _):
        done = subprocess.run(
            [python, str(HERE / "talk.py"), str(server.port), "key"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["numpy"].startswith("1.")
    assert found["dataset"] == "robot"
    assert found["actions"][2] == [5, 1, 0, 0, -1]  # an open gripper, as LIBERO has it
    assert found["type"] == "float32"
    assert {"infer_ms", "queue_ms"} <= set(found["timing"])
    assert found["played"] == [0, 1, 20, 21]
    assert "'prompt' is a NoneType" in found["error"]
    assert "Traceback" not in found["error"]

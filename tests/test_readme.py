"""The README's example is run, so that it stays true."""

import re
import shutil
from pathlib import Path

import numpy as np

from tests import fake
from vla_jax.data.index import open_index
from vla_jax.data.standardize import resolve_spec

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_example_of_ones_own_data_set_indexes_an_rlds_folder(tmp_path):
    (code,) = re.findall(
        r"```python\n   # my_robot.py\n(.*?)```", README.read_text(), re.S
    )
    lines = [line.removeprefix("   ") for line in code.splitlines()]
    (tmp_path / "my_robot.py").write_text("\n".join(lines))
    folder = fake.write_dataset(tmp_path / "data")
    index = open_index(folder, resolve_spec(f"{tmp_path / 'my_robot.py'}:MY_ROBOT"))
    assert index.cameras == ("primary", "wrist")
    np.testing.assert_allclose(
        index.action[1], [*fake.action(0, 1)[:3], (1 - fake.action(0, 1)[3]) / 2]
    )
    shutil.rmtree(folder)


def test_every_linked_file_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    assert links
    missing = [link for link in links if not (README.parent / link).exists()]
    assert not missing

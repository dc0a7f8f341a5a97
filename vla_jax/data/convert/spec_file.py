"""Writes the `DatasetSpec` of a converted data set, for its user to train and adapt."""

from pathlib import Path

from vla_jax.data.convert.layout import (
    Layout,
    feature_name,
    standard_cameras,
    standard_depth,
)

FILE_NAME = "my_dataset.py"
VARIABLE = "DATASET"

_TEMPLATE = '''"""{title}

Check the kinds of the action, the gripper and the control rate, then look at the data:

    python launch/index.py --data_dir={folder} \\\\
        --spec={file}:{variable} --validate
"""

import numpy as np

from vla_jax.data.standardize import DatasetSpec, decode_language

{constants}
def standardize(raw):
    """Proprio and action as recorded{but}."""
    action = raw.arrays["steps/action"]
{gripper}    return {{
        "proprio": raw.arrays["steps/observation/state"],
        "action": action,
        "language": decode_language(raw.text["steps/language_instruction"]),
    }}


{variable} = DatasetSpec(
    name={name!r},
    cameras={{
{cameras}    }},
{depth}    action=(
{action}    ),
    control_hz={control_hz!r},
    standardize=standardize,
)
'''
_GRIPPER = """    span = GRIPPER_OPEN - GRIPPER_CLOSED
    gripper = (action[:, -1:] - GRIPPER_CLOSED) / span
    action = np.concatenate([action[:, :-1], np.clip(gripper, 0, 1)], axis=1)
"""
_CONSTANTS = """# The last action dimension when the gripper is closed and when open.
GRIPPER_CLOSED, GRIPPER_OPEN = {closed!r}, {open!r}

"""


def write_spec_file(layout: Layout, folder: Path, name: str) -> Path:
    """Writes `my_dataset.py` beside the version folder, unless there is one."""
    file = folder.parent / FILE_NAME
    if not file.exists():
        file.write_text(spec_source(layout, folder, name))
    return file


def spec_source(layout: Layout, folder: Path, name: str) -> str:
    """The text of a Python file that defines `DATASET`."""
    cameras = standard_cameras(layout.image_size)
    entries = [
        f'        {standard!r}: "steps/observation/image_{feature_name(camera)}",\n'
        for standard, camera in cameras.items()
    ]
    depth = standard_depth(layout.depth_size, cameras)
    depths = [
        f'        {standard!r}: "steps/observation/depth_{feature_name(camera)}",\n'
        for standard, camera in depth.items()
    ]
    gripper = layout.gripper
    constants = _CONSTANTS.format(closed=gripper[0], open=gripper[1]) if gripper else ""
    text = _TEMPLATE.format(
        title=f"{name}: {layout.description}",
        folder=folder,
        file=folder.parent / FILE_NAME,
        variable=VARIABLE,
        constants=constants,
        but=", the gripper from 0 (closed) to 1 (open)" if gripper else "",
        gripper=_GRIPPER if gripper else "",
        name=name,
        cameras="".join(entries),
        depth="    depth={\n" + "".join(depths) + "    },\n" if depths else "",
        action="".join(f"        {kind!r},\n" for kind in layout.action),
        control_hz=layout.control_hz,
    )
    return text if gripper else text.replace("import numpy as np\n\n", "")

"""A data set that cannot be indexed still gets a report, with every reason."""

import numpy as np
import pytest

from tests import fake_arm
from vla_jax.data.checks.unindexed import survey
from vla_jax.data.index import open_index
from vla_jax.data.rlds import open_rlds


def test_every_reason_is_counted(tmp_path):
    def spoil(number, steps):
        if number in (1, 3):
            steps["action"][5, 2] = np.nan
        if number == 4:
            steps["pose"][0, 0] = np.inf

    folder = fake_arm.write_arm(tmp_path, spoil)
    with pytest.raises(ValueError, match="nan at step 5") as error:
        open_index(folder, fake_arm.ARM, progress=False)
    report = survey(
        open_rlds(folder), fake_arm.ARM, error.value, num_episodes=0, progress=False
    )
    index, actions, proprio = report.findings
    assert report.count("error") == 3
    assert report.scope == "5 episodes, all there are"
    assert index.sentence.startswith("The data set cannot be indexed: action of data")
    assert actions.sentence == (
        "2 of 5 sampled episodes fail alike: action of data set 'arm' is nan at step "
        "5, dimension 2; expected finite numbers."
    )
    assert proprio.sentence == (
        "1 of 5 sampled episodes fail alike: proprio of data set 'arm' is inf at step "
        "0, dimension 0; expected finite numbers."
    )
    assert "steps/action" in report.table


def test_a_corrupt_record_and_a_faulty_function_are_reasons(tmp_path):
    folder = fake_arm.write_arm(tmp_path)
    (shard,) = folder.glob("*.tfrecord-*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)

    class Spec:
        name = "arm"

        @staticmethod
        def standardize(raw):
            raise KeyError("gripper")

    report = survey(open_rlds(folder), Spec, ValueError("no"), progress=False)
    reasons = sorted(finding.sentence for finding in report.findings)
    assert reasons[0].startswith("1 of 5 sampled episodes fail alike: ")
    assert reasons[0].endswith(f"(corrupt record in {shard}).")
    assert reasons[1] == "4 of 5 sampled episodes fail alike: KeyError: 'gripper'."
    assert reasons[2] == "The data set cannot be indexed: no"

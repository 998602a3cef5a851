"""A sweep's record."""

import pytest

from ijepa.run_folder import SweepFolder
from ijepa.sweeps import jobs


def test_a_record_that_is_broken(tmp_path):
    assert jobs.read(tmp_path) is None
    SweepFolder(tmp_path).record.write_text('{"jobs": [{}]}')
    with pytest.raises(ValueError, match="corrupt; run the sweep again"):
        jobs.read(tmp_path)

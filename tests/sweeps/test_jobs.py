"""A sweep's record."""

import pytest

from ijepa.sweeps import jobs


def test_a_record_that_is_broken(tmp_path):
    assert jobs.read(tmp_path) is None
    (tmp_path / jobs.RECORD).write_text('{"jobs": [{}]}')
    with pytest.raises(ValueError, match="corrupt; run the sweep again"):
        jobs.read(tmp_path)

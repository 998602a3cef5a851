"""Fixtures."""

import pytest
from weight_files import SHAPES, saved, spec_of


@pytest.fixture(params=list(SHAPES))
def run(request, tmp_path):
    spec = spec_of(request.param)
    return spec, *saved(spec, tmp_path)

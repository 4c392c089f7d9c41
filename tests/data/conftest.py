"""Small labelled datasets for the tests of data."""

from __future__ import annotations

import pytest
import xarray as xr
from data_grids import grid
from hypothesis import settings

settings.register_profile("undrift", deadline=None)  # a busy machine is no failure
settings.load_profile("undrift")


@pytest.fixture
def ds() -> xr.Dataset:
    return grid()

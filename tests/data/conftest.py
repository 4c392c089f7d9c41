"""Small labelled datasets for the tests of data."""

from __future__ import annotations

import pytest
import xarray as xr
from data_grids import grid


@pytest.fixture
def ds() -> xr.Dataset:
    return grid()

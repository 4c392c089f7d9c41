"""Data: opening, layout, selection; numpy and xarray only."""

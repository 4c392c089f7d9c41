"""Solvers and time grids."""

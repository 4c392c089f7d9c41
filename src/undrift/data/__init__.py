"""Data: opening, layout, selection; no torch."""

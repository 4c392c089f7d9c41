from __future__ import annotations


def report():
    """X."""

"""Distributions: what can be drawn from, and its rivals."""

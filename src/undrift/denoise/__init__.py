"""Denoisers: estimates of the clean field and of the noise."""

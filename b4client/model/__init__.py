"""Nouns: frozen values with standard-library arithmetic only. No I/O, no clock, no policy."""

"""Measurements with one command each; `launch/benchmark.py` runs them."""

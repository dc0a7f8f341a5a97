"""Checks of an indexed data set; `vla_jax.data.validate` runs them."""

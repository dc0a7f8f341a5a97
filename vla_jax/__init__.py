"""Hierarchical and spatially grounded vision-language-action policies in JAX."""

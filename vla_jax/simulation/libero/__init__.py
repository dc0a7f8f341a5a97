"""LIBERO: 130 tasks of a Panda arm with fixed initial states and language."""

"""Using a trained policy: history, normalization and chunk playing in one place."""

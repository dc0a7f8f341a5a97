"""Training: optimizer, step, sharding, checkpoints and the loop that joins them."""

"""From demonstrations on disk to batches on devices, without TensorFlow."""

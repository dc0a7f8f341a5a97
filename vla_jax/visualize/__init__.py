"""Pictures of what a trained policy does."""

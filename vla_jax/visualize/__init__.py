"""Pictures of what a trained policy looks at and does, over recorded episodes."""

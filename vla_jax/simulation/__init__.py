"""Simulated robots: environments, scripted experts, collection and evaluation."""

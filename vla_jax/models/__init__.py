"""Encoders, attention modules, trunk and the policy that composes them."""

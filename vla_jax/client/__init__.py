"""The robot's side of a policy server; needs numpy, msgpack and websockets, no JAX."""

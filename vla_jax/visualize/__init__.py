"""What a policy looks at: over a recorded episode, as arrays and as pictures."""

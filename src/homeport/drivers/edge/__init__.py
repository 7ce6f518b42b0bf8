"""The edge: what the public talks to."""

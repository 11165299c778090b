"""A page to try checkpoints on: the server, and what it does with an image."""

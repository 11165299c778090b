"""One HTML page about a run: scores, curves, examples, settings."""

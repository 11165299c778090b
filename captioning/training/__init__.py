"""Train a model with Lightning: the module, the trainer, its callbacks, and what a run writes."""

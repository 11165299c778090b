"""Use a trained model: captions, attention maps, likelihoods, answers and text out of a checkpoint."""

"""Study a trained model: its activations, what single units react to, and how gradients flow."""

"""Read, check, rebuild, resume and export checkpoints, without running code from them."""

"""Read and write files safely: whole or not at all, and large downloads that resume."""

"""Fast kernels and packed layouts, apart from the equations that they compute."""

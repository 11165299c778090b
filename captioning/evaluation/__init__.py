"""Caption a whole split, score it, compare results, and measure what attention looks at."""

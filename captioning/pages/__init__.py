"""Pages for a browser: the report of a run, and the demo. Nothing on them comes from another address."""

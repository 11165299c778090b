"""Pages for a browser: the report of a run, and the demo; they load nothing from another address."""

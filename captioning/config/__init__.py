"""Turn YAML files and command lines into checked plain settings, and settings into objects."""

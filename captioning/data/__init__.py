"""Annotations, words, pictures and stored features; no networks (those live in `captioning.models`)."""

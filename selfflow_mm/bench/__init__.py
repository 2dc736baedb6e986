"""Measurements of the model: how fast, how close to the machine's limit, in how much memory, against what."""

"""Robots as one more modality of Self-Flow models: a robot's actions are tokens like any other.

The package is reserved and empty so far: episodes, actions, policies, world models and environments will live here,
built on ``selfflow_mm`` and ``selfflow_tokenizers``, which never import it.
"""

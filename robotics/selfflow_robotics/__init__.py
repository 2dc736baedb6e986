"""Robots as one more modality of Self-Flow models: a robot's actions are tokens like any other.

Episodes in the formats people have (RLDS records, LeRobot data sets) are read into one type, their actions brought
into one convention, and a small tabletop environment lets the whole path run anywhere. Built on ``selfflow_mm`` and
``selfflow_tokenizers``, which never import it.
"""

"""A stand-in with the surface of SimplerEnv (commit 4ab7178) that its evaluator uses; no simulation.

Environments write down every call (a line of JSON in the file that ``STAND_IN_LOG`` names) and fail in the ways that
``STAND_IN_FAULTS`` asks for.
"""

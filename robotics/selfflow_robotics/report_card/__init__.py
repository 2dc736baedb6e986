"""The report card of a world model: what it predicts, whether actions act in it, and whether it ranks policies rightly.

``card.make_card`` measures (``open_loop``, ``moving``, ``counterfactual`` and ``inverse`` are its sections),
``contest.hold_contest`` ranks policies, ``table`` and ``page`` show both; ``ranking`` has the statistics of rankings.
"""

"""What the rooms that train share: the loop, checkpoints, and metrics with patient-clustered intervals.

Needs torch, numpy and pandas alone. Lengths are mm, times are days, risks are probabilities 0 to 1.
"""

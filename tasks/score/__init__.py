"""Scores of new visits with a registered model package.

Reads  a package folder (forecaster.py, forecast/, package.json) and the rows of a hip up to the visit that is asked
       about, as tasks/assemble makes them.
Writes OSTEOFLOW_HOME/scores/<study>.json, one for each study: estimated risk of progression (0..1) of each hip-visit
       with its interval, the model and its digest. Nothing in it dates or names a person.

A model that was trained on phantoms never scores a hospital's study. Research use only, not for diagnosis.
"""

from tasks.score.params import Params
from tasks.score.score import process, read, sentence, withdraw, write

__all__ = ["Params", "process", "read", "sentence", "withdraw", "write"]

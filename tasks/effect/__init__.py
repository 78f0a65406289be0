"""Treatment response: how vessels and lesion changed under each treatment, hips nested in patients.

Reads  data/measures.parquet, data/annotations.parquet, data/hips.parquet.
Writes reports/effect.csv (one row for each treatment x outcome x adjusted) and reports/effect/ (effect.json with
       exclusions, overlap and the paper's figures beside ours; paper.csv, landmark.csv, models.csv of GEE and mixed
       model; effect.svg, overlap.svg).

`change` is follow-up minus baseline in the outcome's unit (mm, count, fraction, risk), baseline being the last visit at
or before the treatment, so that no time before a treatment is credited to it. The stored error of each measurement is
carried into the adjusted estimates and the models (tasks/effect/propagate.py). Every figure is an association: hips
were not randomized, and what was not measured is not adjusted for.
"""

from tasks.effect.effect import run
from tasks.effect.params import Params

__all__ = ["Params", "run"]

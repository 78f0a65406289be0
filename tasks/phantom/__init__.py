"""Synthetic bilateral hip MRI with known truth, for the demo and the tests. Nobody in it exists.

Reads nothing. Writes OUT/dicom (Part 10 files of three invented scanners, with invented identifiers wherever a scanner
puts them), OUT/annotations (the clinical tables, and masks by two readers), OUT/truth (hips.csv: latent state and
centres of the heads in LPS mm for each hip-visit; effects.json: true treatment effects; phi.json: every identifying
string planted) and OUT/montage.png. Lengths in mm, angles in degrees, times in days or months as the name says.
"""

from tasks.phantom.cohort import Summary, one_study, write_cohort
from tasks.phantom.disease import simulate

__all__ = ["Summary", "one_study", "simulate", "write_cohort"]

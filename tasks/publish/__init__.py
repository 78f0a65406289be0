"""The HTML report and the audit site: self-contained pages, no script, nothing fetched.

Reads  below `root` what is there of reports/ (evaluate, compare.csv, effect.csv), data/ (studies, hips, sequences,
       predictions, annotations, hip volumes and masks), and the facts that the flow hands in (`gather.Facts`).
Writes one HTML file (`report`), or a folder of pages (`site`).

Everything shown is de-identified; each number has its n, unit and interval; what is not there is said to be missing.
Risks are estimated probabilities, times are days since the first visit. Research use only, not for diagnosis.
"""

from tasks.publish.pages import report, site

__all__ = ["report", "site"]

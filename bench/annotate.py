"""Importing what readers gave: rows of labels.csv and masks per CPU second, one core.

Rows stand beside csv.DictReader, which reads them and checks nothing; DICOM SEG beside highdicom, which gives the same
planes as volumes.
"""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from highdicom import seg
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from bench.measure import ROUNDS, cpu
from tasks.annotate import clinical, masks_in
from tasks.phantom import one_study
from tasks.store.series import read_stacks, volume

ROWS = 5000


def run() -> dict[str, object]:
    data = table(ROWS)
    good, refused, _ = clinical.read("labels", data, "labels.csv")
    checked = cpu(lambda: clinical.read("labels", data, "labels.csv"))
    floor = cpu(lambda: list(csv.DictReader(io.StringIO(data.decode()))))
    result: dict[str, object] = {
        "rounds": ROUNDS, "rows": len(good), "rows_refused": len(refused),
        "rows_per_cpu_s": round(ROWS / checked), "ratio_to_dict_reader": round(checked / floor, 1),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        path, masks = segmented(Path(place))
        ours = cpu(lambda: masks_in.read_dicom(path, "file"))
        return result | {
            "seg_masks": masks,
            "seg_masks_per_cpu_s": round(masks / ours, 1),
            "seg_ratio_to_highdicom": round(ours / cpu(lambda: _highdicom(path)), 2),
        }


def segmented(folder: Path) -> tuple[Path, int]:
    """A SEG of both femoral heads and a lesion, drawn as balls on a phantom's T1; and how many masks it gives."""
    study = one_study(folder, matrix=1.0)
    files = [path for path in sorted(study["folder"].rglob("*")) if path.is_file()]
    stacks, _ = read_stacks([(str(path), path.read_bytes()) for path in files])
    image, _, frames = volume(next(stack for stack in stacks if stack.series == study["series"]["t1"]))
    by_sop = {dataset.SOPInstanceUID: dataset for dataset in map(pydicom.dcmread, files)}
    places = image.to_lps(np.stack(np.meshgrid(*map(np.arange, image.array.shape), indexing="ij"), axis=-1))
    balls = [np.linalg.norm(places - study["centers"][side], axis=-1) for side in "LR"]
    drawn = {"Femoral head L": balls[0] <= 23, "Femoral head R": balls[1] <= 23, "Necrosis L": balls[0] <= 11}
    described = [
        seg.SegmentDescription(
            number, name, codes.SCT.Tissue, codes.SCT.Bone, seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in enumerate(drawn, 1)
    ]  # fmt: skip
    made = seg.Segmentation(
        [by_sop[frame.sop] for frame in frames], np.stack(list(drawn.values()), axis=-1),
        seg.SegmentationTypeValues.BINARY, described, generate_uid(), 90, generate_uid(), 1, "bench", "m", "1", "1",
    )  # fmt: skip
    made.save_as(folder / "seg.dcm")
    found = masks_in.read_dicom(folder / "seg.dcm", "file")
    return folder / "seg.dcm", len(found.drawn) if found else 0


def table(rows: int) -> bytes:
    """labels.csv of `rows` readings as hospitals write them: dates in the German order, stages in Roman numerals."""
    rng = np.random.default_rng(1)
    lines = ["patient_id;visit_date;side;reader;arco;collapse_mm;kerboul_coronal_deg"]
    for n in range(rows):
        day = f"{rng.integers(13, 28)}.{rng.integers(1, 13):02}.20{rng.integers(10, 25)}"
        stage = ("I", "II", "IIIA", "IIIB")[n % 4]
        depth = {"IIIA": "1,5", "IIIB": "3,0"}.get(stage, "")
        lines.append(f"P{n // 4:05};{day};{'LR'[n % 2]};Reader {n % 3};{stage};{depth};{rng.integers(20, 150)}")
    return "\n".join(lines).encode()


def _highdicom(path: Path) -> list[np.ndarray]:
    read = seg.segread(path)
    return [read.get_volume(segment_numbers=[number], combine_segments=False).array for number in read.segment_numbers]

"""A small hospital: two patients, two visits each, both hips, its files, and what `standardize` made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from tasks.annotate.incoming import Summary, intake
from tasks.annotate.params import Params
from tasks.annotate.stage import run
from tasks.domain.volume import Grid, Volume
from tasks.keys import Keys
from tasks.store import hips, tables

VISIT = Grid((12, 112, 112), (4.0, 0.8, 0.8))
FINE = Grid((64, 96, 96), (0.8, 0.8, 0.8))
CENTRES = {"L": np.array([88.0, 12.0, -20.0]), "R": np.array([-91.0, 9.0, -16.0])}
HEAD_MM = 24.0
FIRST_DAY = date(2021, 3, 4)
DAYS = (0, 180)


def tilted(spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """A coronal grid, 4 degrees oblique, its middle near the middle of the pelvis."""
    a, b = np.deg2rad(4.0), np.deg2rad(-2.0)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    axes = about_z @ about_x @ np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], dtype=float)  # columns d=+y, h=-z, w=+x
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing)
    affine[:3, 3] = np.array([3.0, 8.0, -15.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


T1 = Volume(np.zeros((14, 112, 240), dtype=np.uint8), tilted((4.4, 1.2, 1.2), (14, 112, 240)))
CE = Volume(np.zeros((46, 96, 220), dtype=np.uint8), tilted((1.5, 1.3, 1.3), (46, 96, 220)))


def head(volume: Volume, sides: str = "LR", radius: float = HEAD_MM, shift: tuple[float, ...] = (0, 0, 0)) -> NDArray:
    """bool on the grid of `volume`: a ball around each femoral head's centre."""
    lps = volume.to_lps(np.stack(np.indices(volume.array.shape), axis=-1))
    return np.any([np.linalg.norm(lps - CENTRES[side] - shift, axis=-1) <= radius for side in sides], axis=0)


def lesion(volume: Volume, sides: str = "L") -> NDArray:
    return head(volume, sides, 11.0, (0, -4, 12)) & head(volume, sides)


def vessel(volume: Volume, sides: str = "LR") -> NDArray:
    """A tube of 3 mm radius from the neck into the head."""
    lps = volume.to_lps(np.stack(np.indices(volume.array.shape), axis=-1))
    found = np.zeros(volume.array.shape, dtype=bool)
    for side in sides:
        away = lps - CENTRES[side]
        found |= (np.hypot(away[..., 0], away[..., 1]) <= 3.0) & (np.abs(away[..., 2]) <= 18)
    return found


def on_hip_grid(shape_of: object, side: str, grid: Grid = VISIT) -> NDArray:
    """What `shape_of` is on the hip's grid."""
    volume = Volume(np.zeros(grid.shape, dtype=np.uint8), grid.patient_affine(CENTRES[side], side))
    return shape_of(volume, side)  # type: ignore[operator]


@dataclass
class Visit:
    patient: str
    number: int
    study: str = field(default_factory=generate_uid)
    frame: str = field(default_factory=generate_uid)
    t1: str = field(default_factory=generate_uid)
    ce: str = field(default_factory=generate_uid)

    def __post_init__(self) -> None:
        self.sops = {series: [generate_uid() for _ in range(n)] for series, n in (("t1", 14), ("ce", 46))}

    @property
    def day(self) -> date:
        return FIRST_DAY + timedelta(days=DAYS[self.number])

    def images(self, volume: Volume, name: str) -> list[Dataset]:
        """The series as classic MR objects, as far as a SEG writer needs them."""
        datasets = []
        for n, sop in enumerate(self.sops[name]):
            ds = Dataset()
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, sop
            ds.StudyInstanceUID, ds.SeriesInstanceUID = self.study, getattr(self, name)
            ds.FrameOfReferenceUID, ds.Modality = self.frame, "MR"
            ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = self.patient, "Doe^Jane", "19700101", "F"
            ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "ACC1", "Ref^Dr"
            ds.StudyDate, ds.StudyTime, ds.SeriesNumber, ds.InstanceNumber = "20210304", "101010", 1, n + 1
            ds.Rows, ds.Columns = volume.array.shape[1:]
            column, row = volume.affine[:3, 1], volume.affine[:3, 2]
            ds.PixelSpacing = [round(float(np.linalg.norm(v)), 6) for v in (column, row)]
            unit = [*(row / np.linalg.norm(row)), *(column / np.linalg.norm(column))]
            ds.ImageOrientationPatient = [round(float(v), 9) for v in unit]
            ds.ImagePositionPatient = [round(float(v), 6) for v in volume.to_lps(np.array([n, 0.0, 0.0]))]
            ds.SliceThickness = ds.SpacingBetweenSlices = round(float(volume.spacing[0]), 6)
            ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
            ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
            datasets.append(ds)
        return datasets


@dataclass
class Hospital:
    """`folder` is the workspace; `src` is what is handed to `osteoflow annotate`."""

    folder: Path
    keys: Keys
    visits: list[Visit]

    def __post_init__(self) -> None:
        self.src = self.folder / "from_hospital"
        self.src.mkdir()

    def csv(self, name: str, text: str, encoding: str = "utf-8") -> None:
        (self.src / f"{name}.csv").write_bytes(text.encode(encoding))

    def annotate(self, partial: bool = False, site: str = "local") -> Summary:
        return intake(
            self.src, keys=self.keys, site=site, out=self.folder / "data/imports",
            identified=self.folder / "home/identified", origin="hospital", partial=partial,
        )  # fmt: skip

    def arrive(self, visits: list[Visit] | None = None, without: tuple[str, ...] = ()) -> None:
        """What anonymize and standardize write of `visits`; `without` names hips ('<patient>-<side>') not found."""
        studies, series, rows = [], [], []
        for visit in self.visits if visits is None else visits:
            subject, study = self.keys.subject("local", visit.patient), self.keys.uid(visit.study)
            shifted = (visit.day + timedelta(days=self.keys.shift_days("local", visit.patient))).isoformat()
            days = float(DAYS[visit.number])
            common = {"subject": subject, "study": study, "date": shifted, "origin": "hospital", "days": days}
            studies.append(common | {"status": "released", "batch": "0001", "version": 1, "site": "local"})
            for name, volume in (("t1", T1), ("ce", CE)):
                series.append(
                    {"study": study, "series": self.keys.uid(getattr(visit, name)), "role": name, "status": "ok",
                     "spacing_mm": list(volume.spacing), "affine": list(volume.affine.ravel()),
                     "shape": [float(n) for n in volume.array.shape],
                     "frame_of_reference": self.keys.uid(visit.frame),
                     "sops": "+".join(self.keys.uid(sop) for sop in visit.sops[name])}
                )  # fmt: skip
            for side in ("L", "R"):
                found = f"{visit.patient}-{side}" not in without
                key = f"{study}-{side}"
                rows.append(
                    common | {f"center_{a}_mm": float(CENTRES[side][n]) for n, a in enumerate("xyz")}
                    | {"hip_visit": key, "side": side, "status": "ok" if found else "not_measurable",
                       "file": f"0001/{key}.safetensors" if found else None, "digest": key, "roles": "t1+contrast"}
                )  # fmt: skip
                if found:
                    self._hip(self.folder / f"data/hips/0001/{key}.safetensors", visit, side)
        tables.write("studies", self.folder / "data/studies.parquet", pd.DataFrame(studies))
        tables.write("series", self.folder / "data/series.parquet", pd.DataFrame(series))
        tables.write("hips", self.folder / "data/hips.parquet", pd.DataFrame(rows))

    def _hip(self, path: Path, visit: Visit, side: str) -> None:
        grids = {"t1": VISIT, "contrast": VISIT, "contrast_fine": FINE}
        source = {"t1": visit.t1, "contrast": visit.ce, "contrast_fine": visit.ce}
        meta = {
            "grids": {name: {"shape": list(g.shape), "spacing": list(g.spacing)} for name, g in grids.items()},
            "center_lps": CENTRES[side].tolist(), "side": side,
            "sources": {name: self.keys.uid(uid) for name, uid in source.items()},
            "patient_affine": {n: g.patient_affine(CENTRES[side], side).tolist() for n, g in grids.items()},
            "frame_of_reference": {name: self.keys.uid(visit.frame) for name in grids},
        }  # fmt: skip
        hips.write(path, hips.HipFile({"t1": np.zeros((1, 1, 1), np.uint16)}, meta))

    def stage(self, **changes: object) -> pd.DataFrame:
        """Run the stage; annotations.parquet."""
        run(Params.model_validate(PARAMS | changes), map)
        return pd.read_parquet("data/annotations.parquet")

    def masks(self) -> pd.DataFrame:
        return pd.read_parquet("data/masks.parquet")

    def key(self, visit: Visit, side: str) -> str:
        return f"{self.keys.uid(visit.study)}-{side}"

    def mask(self, visit: Visit, side: str, name: str) -> NDArray:
        return hips.read(Path(f"data/masks/{self.key(visit, side)}.safetensors"), [name]).tensors[name]


PARAMS = {
    "window_days": 21, "field_mm": 45, "head_offset_mm": 12, "grid_tolerance_mm": 1.0,
    "consensus": {"head": "mean", "lesion": "mean", "vessel": "union", "stage": "majority", "measurement": "median"},
    "derived": {"from_masks": [], "convert_to": []},
    "agreement": {"bootstrap": 50, "seed": 1, "min_hips": 3, "floors": {}, "differ": {}},
}  # fmt: skip

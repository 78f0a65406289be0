"""A cohort of toy hips in the workspace's own files: bright spheres with dark wedges, for tests of what learns.

`make(folder)` writes data/hips, hips.parquet, masks, annotations.parquet and split.parquet. Grids are coarser than a
real workspace's, so that a test trains in seconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.domain.disease import ARCO, JIC
from tasks.domain.volume import Grid
from tasks.store import hips, tables
from tasks.store.digests import sha256_file

VISIT = Grid((8, 48, 48), (6.0, 1.8, 1.8))
FINE = Grid((16, 48, 48), (2.4, 1.6, 1.6))


def make(
    folder: Path,
    patients: int = 6,
    visits: int = 2,
    folds: int = 2,
    test: int = 1,
    external: int = 0,
    masks: bool = True,
    roles: tuple[str, ...] = ("t1", "fluid", "contrast"),
    readers: tuple[str, ...] = ("ra", "rb"),
    visit_grid: Grid = VISIT,
    fine_grid: Grid = FINE,
    seed: int = 0,
) -> pd.DataFrame:
    """Write the cohort below `folder` (a workspace); returns hips.parquet.

    The last `external` patients are of an external site, the `test` before them are the test set.
    """
    rng = np.random.default_rng(seed)
    rows, notes, split = [], [], []
    for patient in range(patients):
        subject = f"OF{'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[patient % 26]}{patient:015d}"
        last = patients - external
        fold = "external" if patient >= last else "test" if patient >= last - test else str(patient % folds)
        split.append({"subject": subject, "fold": fold})
        habit = rng.uniform(0.6, 1.2, 3)  # how bright each sequence is in this patient: something to recognize
        for side in ("L", "R"):
            lesion = (patient + (side == "L")) % 3 > 0
            shape = _Shape(rng, lesion, habit)
            for visit in range(visits):
                study = f"2.25.{1000 + patient * 10 + visit}"
                key = f"{study}-{side}"
                file = f"batch-1/{key}.safetensors"
                drawn = _write(folder, file, key, shape, side, roles, rng, masks, readers, visit_grid, fine_grid)
                rows.append(
                    {
                        "hip_visit": key, "subject": subject, "study": study, "side": side, "days": 180.0 * visit,
                        "center_x_mm": 90.0, "center_y_mm": 0.0, "center_z_mm": 0.0, "roles": "+".join(roles),
                        "status": "ok", "reason": None, "file": file,
                        "digest": sha256_file(folder / "data/hips" / file), "date": "2001-01-01", "origin": "phantom",
                    }
                )  # fmt: skip
                values = {"lesion": str(int(lesion))}
                if lesion:
                    level = int(np.clip(shape.angle // 20, 0, 3))
                    values |= {"arco": ARCO[min(level, 4)], "jic": JIC[level]}
                    values |= {"kerboul_coronal_deg": f"{2 * shape.angle:.1f}", "collapse_mm": f"{level / 2:.1f}"}
                base = {"hip_visit": key, "subject": subject, "side": side, "source": "table", "days": 180.0 * visit}
                for reader in (*readers, "consensus"):
                    notes += [
                        base | {"reader": reader, "kind": "label", "name": n, "value": v} for n, v in values.items()
                    ]
                    notes += [
                        base | {"reader": reader, "kind": "mask", "name": n, "value": f"{key}.safetensors"}
                        for n in drawn
                    ]
    tables.write("hips", folder / "data/hips.parquet", pd.DataFrame(rows))
    tables.write("annotations", folder / "data/annotations.parquet", pd.DataFrame(notes))
    tables.write("split", folder / "data/split.parquet", pd.DataFrame(split))
    (folder / "data/masks").mkdir(parents=True, exist_ok=True)
    return pd.DataFrame(rows)


class _Shape:
    """One hip: radius of the head in mm, lesion as a cone of half-angle `angle` around `axis`, vessel paths."""

    def __init__(self, rng: np.random.Generator, lesion: bool, habit: NDArray) -> None:
        self.habit = habit
        self.radius = rng.uniform(22, 25)
        self.angle = rng.uniform(25, 60) if lesion else 0.0
        tilt, front = np.deg2rad(rng.normal(10, 15)), np.deg2rad(rng.normal(10, 8))
        axis = np.array([np.sin(tilt), -np.sin(front), np.cos(tilt) * np.cos(front)])
        self.axis = axis / np.linalg.norm(axis)
        self.ends = [(rng.uniform(-20, 20, 3), rng.uniform(-20, 20, 3)) for _ in range(4)]

    def head(self, points: NDArray) -> NDArray:
        return np.linalg.norm(points, axis=-1) < self.radius

    def lesion(self, points: NDArray) -> NDArray:
        if not self.angle:
            return np.zeros(points.shape[:-1], bool)
        pole = self.axis * self.radius
        reach = 2 * self.radius * np.sin(np.deg2rad(self.angle) / 2)
        return self.head(points) & (np.linalg.norm(points - pole, axis=-1) < reach)

    def vessel(self, points: NDArray, radius: float) -> NDArray:
        out = np.zeros(points.shape[:-1], bool)
        for start, end in self.ends:
            along = end - start
            t = np.clip((points - start) @ along / (along @ along), 0, 1)
            out |= np.linalg.norm(points - start - t[..., None] * along, axis=-1) < radius
        return out


def _points(grid: Grid) -> NDArray[np.float64]:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    affine = grid.hip_affine()
    return index @ affine[:3, :3].T + affine[:3, 3]


def _write(folder, file, key, shape, side, roles, rng, masks, readers, visit_grid, fine_grid) -> list[str]:
    points = _points(visit_grid)
    head, lesion = shape.head(points), shape.lesion(points)
    femur = head | ((np.abs(points[..., 1]) < 14) & (points[..., 2] < -10) & (points[..., 0] > -5))
    values = {
        "t1": np.where(lesion, 0.4, np.where(femur, 0.9, 0.35)) * shape.habit[0],
        "fluid": np.where(lesion, 0.7, np.where(femur, 0.2, 0.3)) * shape.habit[1],
        "contrast": np.where(lesion, 0.3, np.where(femur, 0.5, 0.4)) * shape.habit[2],
    }
    images = {name: values[name] for name in roles}
    if "contrast" in roles:
        fine = _points(fine_grid)
        vessel = shape.vessel(fine, 1.3 * fine_grid.spacing[1])
        images["contrast_fine"] = np.where(vessel, 1.0, np.where(shape.head(fine), 0.5, 0.35))
    grids = {name: fine_grid if name == "contrast_fine" else visit_grid for name in images}
    tensors, scale = {}, {}
    for name, image in images.items():
        noisy = np.clip(image * rng.uniform(0.95, 1.05) + rng.normal(0, 0.08, image.shape), 0, None)
        tensors[name], scale[name] = hips.quantize(noisy)
    centre = np.array([90.0 if side == "L" else -90.0, 0.0, 0.0])
    meta = {
        "scale": {name: list(pair) for name, pair in scale.items()},
        "grids": {name: {"shape": list(grid.shape), "spacing": list(grid.spacing)} for name, grid in grids.items()},
        "center_lps": centre.tolist(), "side": side, "mirrored": side == "R",
        "sources": dict.fromkeys(images, "2.25.1"),
        "patient_affine": {name: grid.patient_affine(centre, side).tolist() for name, grid in grids.items()},
        "frame_of_reference": dict.fromkeys(images, "2.25.2"),
    }  # fmt: skip
    hips.write(folder / "data/hips" / file, hips.HipFile(tensors, meta))
    if not masks:
        return []
    drawn = {"head": head, "lesion": lesion} | ({"vessel": vessel} if "contrast" in roles else {})
    painted = {}
    for reader in (*readers, "consensus"):
        for name, mask in drawn.items():
            shift = 0 if reader == "consensus" else int(reader == readers[0]) * 2 - 1
            painted[f"{reader}/{name}"] = np.roll(mask, shift, axis=2).astype(np.uint8)
    source = {"sources": dict.fromkeys(painted, "toy")}
    hips.write(folder / "data/masks" / f"{key}.safetensors", hips.HipFile(painted, source))
    return list(drawn)


def another_external_site(folder: Path) -> set[str]:
    """Images, masks and lesion labels of all external patients become others; returns their hip-visits."""
    split = pd.read_parquet(folder / "data/split.parquet")
    outside = set(split.loc[split["fold"] == "external", "subject"])
    rows = pd.read_parquet(folder / "data/hips.parquet")
    for i, row in rows[rows["subject"].isin(outside)].iterrows():
        for path in (folder / "data/hips" / row["file"], folder / f"data/masks/{row['hip_visit']}.safetensors"):
            file = hips.read(path)
            turned = {name: np.ascontiguousarray(np.swapaxes(one, 1, 2)) for name, one in file.tensors.items()}
            hips.write(path, hips.HipFile(turned, file.meta))
        rows.loc[i, "digest"] = sha256_file(folder / "data/hips" / row["file"])
    tables.write("hips", folder / "data/hips.parquet", rows)
    notes = pd.read_parquet(folder / "data/annotations.parquet")
    lesion = notes["subject"].isin(outside) & (notes["name"] == "lesion") & (notes["kind"] == "label")
    notes.loc[lesion, "value"] = notes.loc[lesion, "value"].map({"0": "1", "1": "0"})
    tables.write("annotations", folder / "data/annotations.parquet", notes)
    return set(rows.loc[rows["subject"].isin(outside), "hip_visit"])


def strip_masks(folder: Path) -> None:
    """As if nobody had drawn anything."""
    for path in (folder / "data/masks").glob("*.safetensors"):
        path.unlink()

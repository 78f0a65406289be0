"""Standardize beside MONAI and TorchIO pipelines doing the same steps on the same study, one core, CPU seconds.

The peers read the series' files with pydicom (through MONAI's own reader, or SimpleITK for TorchIO), bring them to LPS
order, resample them to the hip grids at places that they are given (they have no localizer), and normalize by
percentile. Reading back: 3 x 224 x 224 samples at random from mapped hip files, copied into a batch.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom

from bench.measure import ROUNDS, cpu
from tasks.domain.params import load
from tasks.domain.volume import LPS_TO_RAS
from tasks.phantom import one_study
from tasks.standardize import process
from tasks.standardize.params import Params
from tasks.store import archives, hips
from tasks.store.items import Item


def run() -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        folder = Path(place)
        one_study(folder / "source", matrix=1.0)
        files = sorted(path for path in (folder / "source/dicom").rglob("*") if path.is_file())
        archives.write(folder / "study.zip", [(path.name, path.read_bytes()) for path in files])
        item = Item("1.2", "d", {"study": "1.2", "subject": "X", "archives": [str(folder / "study.zip")]})
        params = load("standardize", Params)
        plain = params.model_copy(update={"n4": params.n4.model_copy(update={"enabled": False}), "sheets": False})
        corrected = plain.model_copy(update={"n4": params.n4.model_copy(update={"enabled": True})})
        rows = process(item, plain, folder / "hips")
        found = [row for row in rows if row["table"] == "hips" and row["status"] == "ok"]
        taken = {
            "cpu_s_per_study": cpu(lambda: process(item, plain, folder / "hips")),
            "cpu_s_per_study_with_n4": cpu(lambda: process(item, corrected, folder / "hips"), rounds=3),
        }
        result: dict[str, object] = {"files": len(files), "hips": len(found), "rounds": ROUNDS}
        result |= {name: round(seconds, 3) for name, seconds in taken.items()}
        for name, peer in (("monai", _monai), ("torchio", _torchio)):
            if importlib.util.find_spec(name) is None:
                result[name] = "not installed"
                continue
            work = peer(_series(files, folder / "series"), [_affines(folder / "hips" / row["file"]) for row in found])
            seconds = cpu(work, rounds=3)
            result[f"{name}_cpu_s_without_localizing"] = round(seconds, 3)
            result[f"ratio_to_{name}"] = round(taken["cpu_s_per_study"] / seconds, 2)
        return result | read_back(folder / "back", 224) | read_back(folder / "back", 112)


def read_back(folder: Path, pixels: int, visits: int = 40, samples: int = 2000) -> dict[str, object]:
    """Samples of 3 x pixels x pixels per CPU second, beside a copy of as many bytes within memory (the floor)."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(visits):
        stored = rng.integers(0, 65535, (12, pixels, pixels), dtype=np.uint16)
        meta = {"scale": {role: [1.0, 0.0] for role in ("t1", "fluid", "contrast")}}
        path = folder / f"{pixels}-{n}.safetensors"
        hips.write(path, hips.HipFile(dict.fromkeys(meta["scale"], stored), meta))
        rows.append({"file": path.name} | {f"at_{name}": at for name, at in hips.layout(path).items()})
    index = pd.DataFrame(rows)
    asked = [
        (int(v), int(k)) for v, k in zip(rng.integers(0, visits, samples), rng.integers(0, 12, samples), strict=True)
    ]
    batch = np.empty((50, 3, pixels, pixels), np.uint16)

    def read() -> None:
        slices = hips.Slices(index, folder, ("t1", "fluid", "contrast"))
        for start in range(0, samples, len(batch)):
            slices.take(*zip(*asked[start : start + len(batch)], strict=True), out=batch)

    memory = np.zeros_like(batch)

    def copy() -> None:
        for _ in range(0, samples, len(batch)):
            np.copyto(batch, memory)

    taken, floor = cpu(read), cpu(copy)
    return {
        f"samples_{pixels}_per_cpu_s": round(samples / taken),
        f"ratio_to_memory_copy_{pixels}": round(taken / max(floor, 1e-6), 2),
    }


def _series(files: list[Path], folder: Path) -> list[list[Path]]:
    """Files of the three largest series, each in a folder of its own, as the peers want them."""
    by_series: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_series[pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID].append(path)
    found = []
    for number, paths in enumerate(sorted(by_series.values(), key=lambda paths: -len(paths))[:3]):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
        found.append([Path(shutil.copy(path, folder / str(number) / f"{k}.dcm")) for k, path in enumerate(paths)])
    return found


def _affines(path: Path) -> dict[str, tuple[np.ndarray, tuple[int, ...]]]:
    meta = hips.read(path, []).meta
    return {
        name: (np.array(meta["patient_affine"][name]), tuple(meta["grids"][name]["shape"]))
        for name in sorted(meta["grids"])
    }


def _monai(series: list[list[Path]], wanted: list[dict[str, Any]]) -> Any:
    import torch
    from monai.data import PydicomReader
    from monai.transforms import LoadImage, ScaleIntensityRangePercentiles, SpatialResample

    torch.set_num_threads(1)
    reader = LoadImage(reader=PydicomReader(), image_only=True, ensure_channel_first=True)
    place, level = SpatialResample(mode="bilinear"), ScaleIntensityRangePercentiles(2, 98, 0, 1)

    def work() -> None:
        for number, paths in enumerate(series):
            image = level(reader(str(paths[0].parent)))
            for affine, shape in _places(wanted, number):
                place(image, dst_affine=torch.as_tensor(affine), spatial_size=shape)

    return work


def _torchio(series: list[list[Path]], wanted: list[dict[str, Any]]) -> Any:
    import torch
    import torchio

    torch.set_num_threads(1)
    level = torchio.RescaleIntensity((0, 1), percentiles=(2, 98))

    def work() -> None:
        for number, paths in enumerate(series):
            image = level(torchio.ScalarImage(paths[0].parent))
            for affine, shape in _places(wanted, number):
                torchio.Resample((shape, affine), image_interpolation="linear")(image)

    return work


def _places(wanted: list[dict[str, Any]], number: int) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    """RAS affine and shape of each hip's grids for one series; the largest is the contrast series and has two."""
    names = ["contrast", "contrast_fine"] if number == 0 else [("t1", "fluid")[number - 1]]
    return [(LPS_TO_RAS @ hip[name][0], hip[name][1]) for hip in wanted for name in names if name in hip]

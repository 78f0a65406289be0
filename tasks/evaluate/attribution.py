"""What in the images an encoder's call of a lesion rests on, and whether that means anything (Grad-CAM, by captum).

Reads  models/classify (each hip-visit by the network that did not see its patient), data/hips, and where the head lies:
       data/masks (readers) or data/segments.
Writes reports/evaluate/attribution.json and attribution.svg.

Two numbers say whether to believe the pictures. The share of attribution inside the head, beside the share of the image
that is head (what a map that knows nothing gets). And how like the map is to that of the same network with random
weights (Adebayo 2018): a map that stays the same shows edges of the image, not what was learned.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.domain.hip import RESEARCH_ONLY
from tasks.nets.encoder import VisitEncoder
from tasks.store import hips
from tasks.store.files import read_json, write_json
from tasks.training import data, metrics, models, pictures
from tasks.training.metrics import none_if_nan

MODELS, SEGMENTS = Path("models/classify"), Path("data/segments")
STRIDE = 16
"""Maps are taken where the network's cells are this many pixels: deeper ones are larger than a lesion."""
log = logging.getLogger("osteoflow.evaluate")


def write(count: int, resamples: int, folder: Path) -> None:
    """Explain `count` hip-visits of different patients, in the order of how sure a lesion was called."""
    found = _explained(count)
    rows, reason = found if isinstance(found, tuple) else ([], found)
    write_json(folder / "attribution.json", _numbers(rows, resamples) | {"reason": reason, "note": RESEARCH_ONLY})
    shown = [
        (f"{row['hip_visit'][-24:]}: {row['inside']:.0%} of it inside the head", row["picture"]) for row in rows
    ]  # fmt: skip
    title = f"What the call of a lesion rests on (Grad-CAM), n = {len(rows)} patients. {reason or RESEARCH_ONLY}"
    pictures.sheet(folder / "attribution.svg", title if rows else f"{title}. {RESEARCH_ONLY}", shown)


def _explained(count: int) -> tuple[list[dict[str, Any]], str] | str:
    if not (MODELS / "features.json").exists():
        return "models/classify is not there"
    folds = read_json(MODELS / "features.json")["folds"]
    if not folds or not count:
        return "there is no encoder" if count else "explain_hips is 0"
    cohort = data.cohort()
    cohort = cohort[cohort["fold"].isin(folds)].drop_duplicates("subject", keep="last")
    # By lot that stays the same as patients come: the least digests.
    chosen = cohort.sort_values("digest").head(count)
    rows = []
    for fold, part in chosen.groupby("fold"):
        rows += _of_fold(str(fold), part)
    return sorted(rows, key=lambda row: -row["logit"]), "" if rows else "no head is known in any of them"


def _of_fold(fold: str, chosen: pd.DataFrame) -> list[dict[str, Any]]:
    record = models.record(MODELS, f"fold{fold}")
    if record is None:
        return []
    how, reading = record["architecture"], record["reading"]
    torch.manual_seed(0)
    learned, random = (
        VisitEncoder(how["network"], len(how["roles"]), how["dropout"], how["reduced"], how["width"]).eval()
        for _ in range(2)
    )
    models.load(MODELS, f"fold{fold}", learned)
    _wake(random)
    rows = []
    for hip_visit, subject, path, mask in chosen[["hip_visit", "subject", "path", "mask"]].to_numpy():
        stack = data.stack([path], how["roles"], reading["size_px"])
        head = _head(str(hip_visit), mask, stack)
        if head is None:
            continue
        near = torch.nonzero(stack.places().abs() <= reading["reach_mm"])[:, 0]
        images, place = stack.take(torch.tensor([0]), near[None]), (stack.places()[near] / 20.0)[None]
        map_, logit = _map(learned, images, place)
        other, _ = _map(random, images, place)
        inside = head[near]
        middle = int(map_.sum((1, 2)).argmax())
        seen = pictures.grey(images[0, middle].amax(0).numpy())
        seen = pictures.heat(seen, (map_[middle] / map_.max().clamp_min(1e-9)).numpy())
        rows.append(
            {
                "hip_visit": hip_visit, "subject": subject, "logit": logit,
                "inside": float((map_ * inside).sum() / map_.sum()) if float(map_.sum()) else float("nan"),
                "head_share": float(inside.float().mean()),
                "like_random": _rank_correlation(map_.flatten(), other.flatten()),
                "picture": pictures.outline(seen, inside[middle].numpy(), (0, 200, 255)),
            }
        )  # fmt: skip
    return rows


def _map(net: VisitEncoder, images: Tensor, place: Tensor) -> tuple[Tensor, float]:
    """((slices, H, W) attribution of a lesion's logit, 0 or more; the logit)."""
    from captum.attr import LayerGradCam  # here: it takes a second to import

    def lesion(slices: Tensor) -> Tensor:
        return net(slices, place)["lesion"][:, 0]

    found = LayerGradCam(lesion, _layer(net, images)).attribute(images, relu_attributions=True).detach()
    size = images.shape[-2:]
    with torch.no_grad():
        logit = float(lesion(images))
    return functional.interpolate(found, size=size, mode="bilinear", align_corners=False)[:, 0], logit


def _layer(net: VisitEncoder, images: Tensor) -> nn.Module:
    """The last one of the backbone whose cells are STRIDE pixels or less."""
    x, last = images[0, :1], net.features[0]
    with torch.no_grad():
        for layer in net.features:
            x = layer(x)
            if images.shape[-1] / x.shape[-1] > STRIDE + 1:
                break
            last = layer
    return last


def _wake(net: VisitEncoder) -> None:
    """Heads start at zero, and with them every gradient: the random network gets random ones."""
    for head in net.heads.values():
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.1)


def _head(hip_visit: str, mask: str, stack: data.Stack) -> Tensor | None:
    """(D, H, W) bool on the grid of `stack`: as the readers drew it, else as the network did."""
    drawn = hips.read(Path(mask), [f"{data.CONSENSUS}/head"]).tensors if mask else {}
    if not drawn and (made := SEGMENTS / f"{hip_visit}.safetensors").exists():
        drawn = hips.read(made, ["head"]).tensors
    if not drawn:
        return None
    volume = torch.from_numpy(np.ascontiguousarray(next(iter(drawn.values())) > 0)).float()
    if len(volume) != stack.bits.shape[2] or not bool(volume.any()):
        return None
    return functional.interpolate(volume[None], size=stack.bits.shape[3:], mode="area")[0] >= 0.5


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's, ties by place; NaN where a map is empty."""
    if float(a.std()) == 0 or float(b.std()) == 0:
        return float("nan")
    first, second = (x.argsort(stable=True).argsort().double() for x in (a, b))
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


def _numbers(rows: list[dict[str, Any]], resamples: int) -> dict[str, Any]:
    """Means over hip-visits with intervals that resample patients."""
    subjects = np.array([row["subject"] for row in rows])
    out: dict[str, Any] = {"method": "Grad-CAM", "unit": "hip-visit", "n": len(rows)}
    out["n_patients"] = len(set(subjects.tolist()))
    for name in ("inside", "head_share", "like_random"):
        values = np.array([row[name] for row in rows], dtype=float)
        known = np.isfinite(values)
        if not known.any():
            out[name] = None
            continue
        one = metrics.clustered_bootstrap([values[known]], subjects[known], metrics.mean, resamples)
        out |= {name: none_if_nan(one.value), f"{name}_low": none_if_nan(one.low), f"{name}_n": int(known.sum())}
        out |= {f"{name}_high": none_if_nan(one.high)}
    like = out.get("like_random")
    out["sane"] = None if like is None else bool(abs(like) < 0.5)
    out["hips"] = [
        {name: none_if_nan(row[name]) if isinstance(row[name], float) else row[name]
         for name in ("hip_visit", "logit", "inside", "head_share", "like_random")} for row in rows
    ]  # fmt: skip
    return out

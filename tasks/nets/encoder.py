"""The visit encoder: slices of one hip-visit -> what a radiologist would write about it.

    slices -> backbone -> 1x1 to 64 -> 3x3 grid -> share of head and lesion in each cell
                                               -> slice vector (+ where the slice lies) -> lesion on this slice?
    slice vectors and cells -> gated attention over slices, beside their mean -> visit vector -> heads

Grid pooling keeps where a lesion is (global average pooling was measured to lose it); its cells are taught by masks and
feed the heads, which with a few dozen patients learn size and place from them long before the images alone would do.
Since every head is a named clinical quantity, the features of networks of different folds mean the same.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tasks.domain.disease import ARCO, JIC
from tasks.nets.backbones import backbone

ORDINAL = {"stage": len(ARCO), "jic": len(JIC)}
"""Heads of ordered levels: 0 is no lesion, then the levels of the vocabulary; one logit per step up."""
SCALE = {
    "kerboul_coronal_deg": 100.0,
    "kerboul_sagittal_deg": 100.0,
    "collapse_mm": 3.0,
    "lesion_fraction": 0.15,
    "lateral_deg": 45.0,
    "oedema": 0.2,
}
"""Heads of numbers, and the size (in the head's unit) that counts as one in the loss. lesion_fraction is of the head's
volume; lateral_deg is where the lesion ends, from straight up towards lateral; oedema is fluid signal of the head
outside the lesion, in normalized intensity."""
NUMBERS = tuple(SCALE)
HEADS = ("lesion", *ORDINAL, *NUMBERS)

GRID = 3
CELLS = ("head", "lesion")
"""What each cell of the grid tells besides: the share of its area that is head, and lesion."""


class SliceClassifier(nn.Module):
    """(B, C, H, W) -> (B,) logit of a lesion on this slice: the task on which networks are compared."""

    def __init__(self, name: str, channels: int, dropout: float, weights: Path | None = None) -> None:
        super().__init__()
        self.features, width = backbone(name, channels, weights)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))[:, 0]


class Ordinal(nn.Module):
    """CORAL: one direction, `steps` ordered thresholds; logit k is that of 'more than level k'."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.direction = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.direction.weight)
        self.bias = nn.Parameter(torch.linspace(1, -1, steps))

    def forward(self, x: Tensor) -> Tensor:
        return self.direction(x) + self.bias


class VisitEncoder(nn.Module):
    """forward(slices (B, S, C, H, W), where (B, S)) -> {"slice": (B, S), "cells": (B, S, 2, 3, 3), head: (B, n), ...}.

    `where` is each slice's place along anterior-posterior, mm from the centre of the head / 20. All outputs are logits
    or scaled numbers; `summarize` turns those of the visit into clinical units.
    """

    def __init__(
        self, name: str, channels: int, dropout: float, reduced: int, width: int, weights: Path | None = None
    ) -> None:
        super().__init__()
        self.features, out = backbone(name, channels, weights)
        self.reduce = nn.Sequential(nn.Conv2d(out, reduced, 1, bias=False), nn.BatchNorm2d(reduced), nn.Hardswish())
        self.grid = nn.AdaptiveAvgPool2d(GRID)
        self.cells = nn.Conv2d(reduced, len(CELLS), 1)
        self.vector = nn.Sequential(nn.Linear(reduced * GRID * GRID + 2, width), nn.Hardswish(), nn.Dropout(dropout))
        self.slice = nn.Linear(width, 1)
        every = width + len(CELLS) * GRID * GRID
        self.value, self.gate, self.weight = nn.Linear(every, 64), nn.Linear(every, 64), nn.Linear(64, 1)
        self.visit = nn.Sequential(nn.Linear(2 * every, width), nn.Hardswish(), nn.Dropout(dropout))
        heads: dict[str, nn.Module] = {"lesion": nn.Linear(width, 1)}
        heads |= {name: Ordinal(width, steps) for name, steps in ORDINAL.items()}
        heads |= {name: nn.Linear(width, 1) for name in NUMBERS}
        self.heads = nn.ModuleDict(heads)
        # After a short fit a random direction would still be much of what a head says.
        for head in self.heads.values():
            if isinstance(head, nn.Linear):
                nn.init.zeros_(head.weight)

    def forward(self, slices: Tensor, where: Tensor) -> dict[str, Tensor]:
        vectors, out = self.look(slices, where)
        return out | self.judge(vectors)

    def look(self, slices: Tensor, where: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Each slice alone: vectors (B, S, width + 18), and {"slice": (B, S), "cells": (B, S, 2, 3, 3)} logits."""
        batch, count = slices.shape[:2]
        flat = slices.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        grid = self.grid(self.reduce(self.features(flat)))
        place = where.flatten()[:, None]
        vectors = self.vector(torch.cat([grid.flatten(1), place, place**2], 1)).view(batch, count, -1)
        cells = self.cells(grid).view(batch, count, len(CELLS), GRID, GRID)
        together = torch.cat([vectors, torch.sigmoid(cells).flatten(2)], 2)
        return together, {"slice": self.slice(vectors)[..., 0], "cells": cells}

    @torch.no_grad()
    def expect(self, means: dict[str, Tensor]) -> None:
        """Let the heads start from what is usual: lesion and ordinals as shares above each level, numbers scaled."""
        for name, mean in means.items():
            head = self.heads[name]
            assert isinstance(head, Ordinal | nn.Linear)
            head.bias.copy_(mean if name in SCALE else torch.logit(mean, eps=0.02))

    def judge(self, vectors: Tensor) -> dict[str, Tensor]:
        """The slices together: {head: (B, n)}."""
        score = self.weight(torch.tanh(self.value(vectors)) * torch.sigmoid(self.gate(vectors)))
        attended = (torch.softmax(score, dim=1) * vectors).sum(1)
        visit = self.visit(torch.cat([attended, vectors.mean(1)], 1))
        return {name: head(visit) for name, head in self.heads.items()}


def summarize(out: dict[str, Tensor]) -> Tensor:
    """The heads of `VisitEncoder` -> (B, len(HEADS)): lesion as a logit, ordinals as expected level, numbers in their
    unit (never below 0, save the angle)."""
    columns = [out["lesion"][:, 0]]
    columns += [torch.sigmoid(out[name]).sum(1) for name in ORDINAL]
    for name, scale in SCALE.items():
        number = out[name][:, 0] * scale
        columns.append(number if name == "lateral_deg" else number.clamp_min(0))
    return torch.stack([column.float() for column in columns], 1)

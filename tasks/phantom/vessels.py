"""The vessels of a femoral head: two retinacular arteries that grow, step by step, in birth order.

A later visit shows the same tree grown on, because a tree of length v is the first v millimetres of the same growth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEP_MM = 1.0
ROOTS = (((15.0, 2.0, 14.5), (-0.86, -0.05, -0.50)), ((2.0, 3.0, -21.0), (-0.15, -0.05, 0.98)))
"""Where the superior and the inferior retinacular artery enter a head of radius 24 mm, and whereto (hip space, mm)."""


@dataclass(frozen=True)
class Tree:
    """segments: (n, 2, 3) mm in hip space in birth order, each `STEP_MM` long; radius: (n,) mm; edge: (n,) number of
    the branch that each belongs to."""

    segments: NDArray[np.float64]
    radius: NDArray[np.float64]
    edge: NDArray[np.int64]

    def at(self, length_mm: float) -> Tree:
        """The tree when it was `length_mm` long."""
        n = int(np.clip(round(length_mm / STEP_MM), 2, len(self.segments)))
        return Tree(self.segments[:n], self.radius[:n], self.edge[:n])

    def branches(self, least_mm: float = 0.0) -> int:
        """Branches (between bifurcations and ends) of at least `least_mm`."""
        return int((np.bincount(self.edge) * STEP_MM >= max(least_mm, 1e-9)).sum())


def grow(length_mm: float, bifurcations: NDArray[np.float64], head_radius: float, rng: np.random.Generator) -> Tree:
    """A tree of `length_mm` that bifurcates when its total length passes each of `bifurcations` (ascending, mm)."""
    scale = head_radius / 24.0
    tips = [(np.array(p) * scale, np.array(d) / np.linalg.norm(d), edge) for edge, (p, d) in enumerate(ROOTS)]
    segments, radius, edges = [], [], []
    depth = {0: 0, 1: 0}
    run = {0: 0, 1: 0}
    pending = [float(b) for b in bifurcations]
    total, turn, new_edge = 0.0, 0, 2
    limit = 0.90 * head_radius
    while total < length_mm:
        # The youngest tips grow first, so that a new branch soon becomes long enough to be seen.
        turn = min(range(len(tips)), key=lambda i: run[tips[i][2]] + 2.0 * depth[tips[i][2]] + rng.random())
        point, direction, edge = tips[turn]
        wish = direction + rng.normal(0, 0.10, 3)
        outward = np.linalg.norm(point)
        if outward > 0.7 * head_radius and wish @ point > 0:
            wish -= 0.35 * (outward / limit) ** 4 * point / outward * (wish @ point) / outward * 1.5
        for other, _, other_edge in tips:  # branches keep apart
            gap = point - other
            near = np.linalg.norm(gap)
            if other_edge != edge and 0 < near < 5:
                wish += 0.15 * gap / near * (1 - near / 5)
        direction = wish / np.linalg.norm(wish)
        end = point + direction * STEP_MM
        if np.linalg.norm(end) > limit:
            end *= limit / np.linalg.norm(end)
            direction = end - point
            direction /= max(np.linalg.norm(direction), 1e-9)
        segments.append((point, end))
        radius.append(max(1.20 - 0.10 * depth[edge], 0.95))
        edges.append(edge)
        total += STEP_MM
        run[edge] += 1
        tips[turn] = (end, direction, edge)
        if pending and total >= pending[0]:
            ready = [i for i, tip in enumerate(tips) if run[tip[2]] >= 3]
            if ready:
                pending.pop(0)
                which = ready[int(rng.integers(len(ready)))]
                point, direction, edge = tips[which]
                side = np.cross(direction, rng.normal(size=3))
                side /= np.linalg.norm(side)
                angle = np.deg2rad(rng.uniform(28, 55))
                forks = [direction * np.cos(angle / 2) + sign * side * np.sin(angle / 2) for sign in (1, -1)]
                for fresh in (new_edge, new_edge + 1):
                    depth[fresh], run[fresh] = depth[edge] + 1, 0
                tips[which] = (point, forks[0], new_edge)
                tips.append((point, forks[1], new_edge + 1))
                new_edge += 2
    return Tree(np.array(segments), np.array(radius), np.array(edges))


def distance_to(
    tree: Tree, patient_from_hip: NDArray[np.floating], affine: NDArray[np.float64], box: tuple[slice, slice, slice]
) -> NDArray[np.float32]:
    """Distance in mm from each voxel centre of `box` of a grid to the tree's surface (negative inside), at most 3.

    `patient_from_hip` and `affine` are 4x4: hip space -> LPS, index -> LPS.
    """
    low = np.array([part.start for part in box])
    shape = np.array([part.stop - part.start for part in box])
    fractions = (np.arange(2) + 0.5) / 2
    points = (tree.segments[:, :1] + fractions[None, :, None] * (tree.segments[:, 1:] - tree.segments[:, :1])).reshape(
        -1, 3
    )
    radius = np.repeat(tree.radius, 2)
    world = points @ patient_from_hip[:3, :3].T + patient_from_hip[:3, 3]
    inverse = np.linalg.inv(affine)
    index = world @ inverse[:3, :3].T + inverse[:3, 3] - low
    reach = np.ceil(3.0 / np.linalg.norm(affine[:3, :3], axis=0)).astype(int)
    offsets = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), -1).reshape(-1, 3)
    voxels = np.round(index).astype(int)[:, None] + offsets[None]
    gaps = (voxels - index[:, None]) @ affine[:3, :3].T
    distance = (np.sqrt((gaps**2).sum(-1)) - radius[:, None]).astype(np.float32)
    keep = ((voxels >= 0) & (voxels < shape)).all(-1) & (distance < 3)
    flat = np.ravel_multi_index(tuple(voxels[keep].T), tuple(shape))
    result = np.full(int(shape.prod()), 3.0, np.float32)
    np.minimum.at(result, flat, distance[keep])
    return result.reshape(shape)

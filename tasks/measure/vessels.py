"""Vessels: from a mask on an isotropic grid to a tree of centrelines in mm.

The mask is thinned (Lee), its voxels become a graph, spurs are cut, clusters of junction voxels and short bridges
between them become one junction, and what is left is measured along smoothed paths. Thinning removes about one radius
at each free tip; it is given back. skan, which the tests hold this against, imports numba (5 s): too slow for a worker.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

_STEPS = np.array([(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1) if (a, b, c) != (0, 0, 0)])


@dataclass(frozen=True)
class Tree:
    """Lengths in mm. `branches` are the edges between tips and junctions that are at least the spur length long."""

    length_mm: float
    branches: int
    mean_radius_mm: float
    max_radius_mm: float
    points_mm: Points
    """(n, 3) centreline points, mm in the order of the array's axes, origin at voxel (0, 0, 0)."""


@dataclass
class _Edge:
    ends: tuple[int, int]
    path: Points
    radii: NDArray[np.float64]
    length: float = field(default=0.0)


def measure_tree(
    mask: NDArray[np.bool_], spacing: tuple[float, ...], spur_mm: float, junction_mm: float, smooth_mm: float
) -> Tree:
    """The tree of `mask` (D, H, W) with voxels of `spacing` mm. An empty mask is a tree of length 0."""
    if not mask.any():
        return Tree(0.0, 0, 0.0, 0.0, np.zeros((0, 3)))
    from scipy.ndimage import distance_transform_edt, maximum_filter

    corner = np.array([np.flatnonzero(mask.any(axis=other))[[0, -1]] for other in ((1, 2), (0, 2), (0, 1))])
    box = tuple(slice(low, high + 1) for low, high in corner)
    part = np.pad(mask[box], 1)
    # From voxel centre to the first one outside, which is half a voxel too far; the axis passes between voxels.
    radius = maximum_filter(distance_transform_edt(part, sampling=spacing), 3) - 0.5 * float(np.min(spacing))
    voxels = np.argwhere(_thinned(part))
    at = {tuple(v): i for i, v in enumerate(voxels.tolist())}
    near = [[j for s in (v + _STEPS).tolist() if (j := at.get(tuple(s))) is not None] for v in voxels]
    places = voxels * np.asarray(spacing)
    radii = radius[tuple(voxels.T)]
    nodes, edges = _graph(near, places, radii)
    _prune(nodes, edges, spur_mm, smooth_mm)
    _contract(nodes, edges, junction_mm)
    _prune(nodes, edges, spur_mm, smooth_mm)
    if not edges:
        return Tree(0.0, 0, float(radii.mean()), float(radii.max()), np.zeros((0, 3)))
    length = sum(path_length(edge.path, smooth_mm) for edge in edges) + _tips(edges, part, np.asarray(spacing))
    points = np.concatenate([edge.path for edge in edges]) + (corner[:, 0] - 1) * np.asarray(spacing)
    return Tree(
        length_mm=length,
        branches=sum(edge.length >= spur_mm for edge in edges),
        # Of the tube that has this volume and length: a distance in voxels is coarse where a tube is three voxels wide.
        mean_radius_mm=float(np.sqrt(part.sum() * np.prod(spacing) / (np.pi * max(length, spur_mm)))),
        max_radius_mm=float(radii.max()),
        points_mm=points,
    )


def _thinned(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Centrelines. Thinning takes a tube of two by two voxels away as a whole: such a one is halved first."""
    from scipy.ndimage import label
    from skimage.morphology import skeletonize

    thin: NDArray[np.bool_] = skeletonize(part) > 0
    tubes, count = label(part, np.ones((3, 3, 3)))
    for lost in sorted(set(range(1, count + 1)) - set(tubes[thin].tolist())):
        tube = tubes == lost
        for axis in range(3):
            half = tube & np.roll(tube, 1, axis)
            tube = half if half.any() else tube
        kept = skeletonize(tube) > 0
        thin |= kept if kept.any() else tube
    return thin


def _graph(near: list[list[int]], places: Points, radii: NDArray[np.float64]) -> tuple[dict[int, Points], list[_Edge]]:
    """Voxels of degree 2 form paths; tips and clusters of junction voxels are the nodes between them."""
    node_of: dict[int, int] = {}
    nodes: dict[int, Points] = {}
    for start, others in enumerate(near):
        if len(others) == 2 or start in node_of:
            continue
        cluster, waiting = [], [start]
        node_of[start] = key = len(nodes)
        while waiting:
            voxel = waiting.pop()
            cluster.append(voxel)
            if len(near[voxel]) < 3:
                continue
            for other in near[voxel]:
                if other not in node_of and len(near[other]) > 2:
                    node_of[other] = key
                    waiting.append(other)
        nodes[key] = places[cluster].mean(axis=0)
    edges: list[_Edge] = []
    seen: set[int] = set()
    direct: set[tuple[int, int]] = set()
    for voxel, key in list(node_of.items()):
        for step in near[voxel]:
            if step in seen:
                continue
            if step in node_of:
                pair = (min(key, node_of[step]), max(key, node_of[step]))
                if pair[0] != pair[1] and pair not in direct:
                    direct.add(pair)
                    edges.append(_edge(nodes, key, node_of[step], [], places, radii, voxel))
                continue
            path, before = [step], voxel
            while path[-1] not in node_of:
                seen.add(path[-1])
                onward = [v for v in near[path[-1]] if v != before and (len(path) < 2 or v != path[-2])]
                before = path[-1]
                if not onward:
                    break
                path.append(onward[0])
            end = node_of.get(path[-1], key)
            edges.append(_edge(nodes, key, end, path[:-1] if path[-1] in node_of else path, places, radii, voxel))
    _rings(near, node_of, seen, nodes, edges, places, radii)
    return nodes, edges


def _rings(
    near: list[list[int]], node_of: dict[int, int], seen: set[int], nodes: dict[int, Points], edges: list[_Edge],
    places: Points, radii: NDArray[np.float64],
) -> None:  # fmt: skip
    """A closed loop has no node: its first voxel becomes one."""
    for start in range(len(near)):
        if start in node_of or start in seen:
            continue
        node_of[start] = key = len(nodes)
        nodes[key] = places[start]
        path, before = [near[start][0]], start
        while path[-1] != start:
            seen.add(path[-1])
            onward = [v for v in near[path[-1]] if v != before]
            before = path[-1]
            path.append(onward[0] if onward else start)
        edges.append(_edge(nodes, key, key, path[:-1], places, radii, start))


def _edge(
    nodes: dict[int, Points], a: int, b: int, path: list[int], places: Points, radii: NDArray[np.float64], voxel: int
) -> _Edge:
    line = np.vstack([nodes[a], places[path].reshape(-1, 3), nodes[b]])
    return _Edge((a, b), line, radii[path] if path else radii[[voxel]])


def _degrees(edges: list[_Edge]) -> dict[int, list[int]]:
    ends: dict[int, list[int]] = defaultdict(list)
    for index, edge in enumerate(edges):
        ends[edge.ends[0]].append(index)
        ends[edge.ends[1]].append(index)
    return ends


def _measure(edges: list[_Edge], smooth_mm: float) -> None:
    ends = _degrees(edges)
    for edge in edges:
        free = [radius for node, radius in zip(edge.ends, (edge.radii[0], edge.radii[-1]), strict=True)
                if len(ends[node]) == 1]  # fmt: skip
        edge.length = path_length(edge.path, smooth_mm) + sum(max(float(radius), 0.0) for radius in free)


def _tips(edges: list[_Edge], mask: NDArray[np.bool_], spacing: Points) -> float:
    """Length that thinning took from the free ends: from the tip straight on to the wall, less the round end."""
    ends, total = _degrees(edges), 0.0
    for edge in edges:
        for path, node in ((edge.path, edge.ends[1]), (edge.path[::-1], edge.ends[0])):
            if len(ends[node]) != 1:
                continue
            course = path[-1] - path[max(len(path) - 5, 0)]
            course = course / max(float(np.linalg.norm(course)), 1e-9)
            steps = np.arange(0.0, 6.0, 0.2)
            voxels = np.round((path[-1] + steps[:, None] * course) / spacing).astype(int)
            inside = mask[tuple(np.clip(voxels, 0, np.array(mask.shape) - 1).T)]
            wall = float(steps[inside.argmin()]) if not inside.all() else float(steps[-1])
            total += max(wall - float(np.median(edge.radii)), 0.0)
    return total


def _prune(nodes: dict[int, Points], edges: list[_Edge], spur_mm: float, smooth_mm: float) -> None:
    """Cut the shortest free end shorter than the spur, join what it leaves, until none is left."""
    _join(nodes, edges)
    _measure(edges, smooth_mm)
    while True:
        ends = _degrees(edges)
        spurs = [
            edge for edge in edges
            if edge.length < spur_mm and (len(ends[edge.ends[0]]) == 1) != (len(ends[edge.ends[1]]) == 1)
        ]  # fmt: skip
        if not spurs:
            break
        shortest = min(spurs, key=lambda edge: edge.length)
        edges[:] = [edge for edge in edges if edge is not shortest]
        _join(nodes, edges)
        _measure(edges, smooth_mm)
    edges[:] = [edge for edge in edges if edge.length >= spur_mm or not _alone(edge, edges)]


def _alone(edge: _Edge, edges: list[_Edge]) -> bool:
    ends = _degrees(edges)
    return len(ends[edge.ends[0]]) == 1 and len(ends[edge.ends[1]]) == 1


def _join(nodes: dict[int, Points], edges: list[_Edge]) -> None:
    """A node with two edges is no junction: the two become one."""
    while True:
        ends = _degrees(edges)
        pair = next((i for i in ends.values() if len(i) == 2 and i[0] != i[1]), None)
        if pair is None:
            return
        first, second = edges[pair[0]], edges[pair[1]]
        node = next(n for n in first.ends if n in second.ends and sorted(ends[n]) == sorted(pair))
        a = _directed(first, node)
        b = _directed(second, node)
        joined = _Edge(
            (a.ends[0], b.ends[0]),
            np.vstack([a.path[:-1], b.path[::-1][1:]]) if len(a.path) + len(b.path) > 4 else np.vstack(
                [a.path[:1], b.path[:1]]),
            np.concatenate([a.radii, b.radii[::-1]]),
        )  # fmt: skip
        edges[:] = [edge for edge in edges if edge is not first and edge is not second] + [joined]


def _directed(edge: _Edge, last: int) -> _Edge:
    """The edge, turned so that it ends at node `last`."""
    if edge.ends[1] == last:
        return edge
    return _Edge((edge.ends[1], edge.ends[0]), edge.path[::-1], edge.radii[::-1], edge.length)


def _contract(nodes: dict[int, Points], edges: list[_Edge], junction_mm: float) -> None:
    """A bridge shorter than `junction_mm` between two junctions: one junction, at its middle."""
    while True:
        ends = _degrees(edges)
        bridges = [
            edge for edge in edges
            if edge.length < junction_mm and edge.ends[0] != edge.ends[1]
            and all(len(ends[node]) > 2 for node in edge.ends)
        ]  # fmt: skip
        if not bridges:
            return
        bridge = min(bridges, key=lambda edge: edge.length)
        keep, gone = bridge.ends
        nodes[keep] = bridge.path.mean(axis=0)
        edges[:] = [edge for edge in edges if edge is not bridge]
        for edge in edges:
            for side in (0, 1):
                if edge.ends[side] in (keep, gone):
                    edge.path = edge.path.copy()
                    edge.path[-side] = nodes[keep]
            edge.ends = (
                keep if edge.ends[0] == gone else edge.ends[0],
                keep if edge.ends[1] == gone else edge.ends[1],
            )


def path_length(path: Points, smooth_mm: float) -> float:
    """Length of a polyline after Gaussian smoothing along it (ends held): stairs of voxels are longer than the line."""
    if len(path) < 3 or smooth_mm <= 0:
        return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    place = np.concatenate([[0.0], np.cumsum(steps)])
    # Reflecting through the ends keeps them in place and the line straight where it is straight.
    reach = min(len(path) - 1, int(np.ceil(3 * smooth_mm / max(steps.mean(), 1e-9))))
    head, tail = 2 * path[0] - path[reach:0:-1], 2 * path[-1] - path[-2 : -reach - 2 : -1]
    line = np.vstack([head, path, tail])
    where = np.concatenate([-place[reach:0:-1], place, 2 * place[-1] - place[-2 : -reach - 2 : -1]])
    weight = np.exp(-0.5 * ((place[:, None] - where) / smooth_mm) ** 2)
    smooth = weight @ line / weight.sum(axis=1, keepdims=True)
    return float(np.linalg.norm(np.diff(smooth, axis=0), axis=1).sum())

"""How deep a ball that stands alone lies in the body: the other ball with a socket, the head of the humerus, lies just
below the skin above it, beside it, in front of it and behind it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tasks.domain.volume import Volume
from tasks.standardize.balls import AIR
from tasks.standardize.head import Head

ABOVE, ASLANT, BESIDE, BEHIND = 3.5, 3.3, 3.3, 3.4
"""Radii of the ball within which air lies above a shoulder (to 3.0 in made ones; none above 224 made hips), above and
laterally (to 3.1; 3.6 and more in hips), laterally (to 3.2), and in front or behind (to 3.3). One of the first two, or
the last two together."""

ASIDE_MM, STEP_MM, WHOLE, SHOWN = 12.0, 3.0, 3, 3
"""Rays run so far beside each other; air is what this many steps on end are, of at least so many rays shown."""

TOWARDS = {
    "above": (0.0, 0.0, 1.0), "aslant": (0.7071, 0.0, 0.7071), "beside": (1.0, 0.0, 0.0), "behind": (0.0, 1.0, 0.0),
    "before": (0.0, -1.0, 0.0),
}  # fmt: skip
"""Laterally, to the back, upwards."""


def shallow(seen: Volume, head: Head) -> bool:
    """Whether the skin is too near for a hip. What the volume does not show is taken for deep."""
    radii = {name: to_air(seen, head, np.array(to) * [head.lateral, 1.0, 1.0]) for name, to in TOWARDS.items()}
    around = radii["beside"] < BESIDE and min(radii["behind"], radii["before"]) < BEHIND
    return bool(radii["above"] < ABOVE or radii["aslant"] < ASLANT or around)


def to_air(seen: Volume, head: Head, to: np.ndarray) -> float:
    """Radii from the ball's centre to the air in this direction; infinite where none is shown."""
    one = np.cross(to, [0.3, 0.5, 0.8])
    one *= ASIDE_MM / np.linalg.norm(one)
    two = np.cross(to, one)
    walk = np.arange(20.0, (BEHIND + 0.3) * head.radius + WHOLE * STEP_MM, STEP_MM)
    points = head.centre + np.stack([0 * one, one, -one, two, -two])[:, None] + walk[:, None] * to
    index = seen.to_index(points)
    inside = ((index > -0.5) & (index < np.array(seen.array.shape) - 0.5)).all(axis=-1)
    values = ndimage.map_coordinates(seen.array, index.reshape(-1, 3).T, order=1, mode="nearest").reshape(inside.shape)
    air = ((values < AIR) & inside).sum(axis=0) >= 0.6 * np.maximum(inside.sum(axis=0), SHOWN)
    on_end = np.lib.stride_tricks.sliding_window_view(air, WHOLE).all(axis=1)
    return float(walk[int(on_end.argmax())] / head.radius) if on_end.any() else float("inf")

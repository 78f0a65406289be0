from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from tasks.domain.params import Section


class Params(Section):
    min_head_mm3: PositiveFloat
    """A head mask smaller than this is a failed segmentation, mm3."""
    min_lesion_mm3: PositiveFloat
    """Lesion voxels below this volume are noise: the hip has no lesion, mm3."""
    weight_bearing_deg: tuple[float, float]
    """Medial and lateral end of the weight-bearing arc in the coronal plane, degrees from superior, lateral positive.
    Its thirds and its lateral end (the acetabular edge) divide JIC types A, B, C1 and C2."""
    collapse_sector_deg: PositiveFloat
    """Half-width of the superior sector in which the contour is held against the sphere, degrees."""
    oedema_level: PositiveFloat
    """Normalized intensity of the fluid series above which marrow counts as oedema."""
    effusion_level: PositiveFloat
    """Normalized intensity of the fluid series above which the joint counts as effusion."""
    enhanced_level: PositiveFloat
    """Normalized intensity of the contrast series above which a voxel of the head counts as enhanced."""
    vessel_max_spacing_mm: PositiveFloat
    """Vessels are measured only where the contrast series was acquired at this spacing or finer, mm."""
    spur_mm: PositiveFloat
    """Free ends of the centreline shorter than this are spurs of thinning, mm."""
    junction_mm: PositiveFloat
    """Junctions nearer to each other than this are one, mm."""
    smooth_mm: PositiveFloat
    """Gaussian along a centreline before its length is taken, mm."""
    repeats: PositiveInt
    """Repeats with perturbed masks and intensities from which the errors come."""
    border_voxels: PositiveFloat
    """SD of the perturbation of a vessel mask's border, in in-plane voxels."""
    border_mm: PositiveFloat
    """SD of the perturbation of the border of head and lesion, mm."""
    centre_slices: NonNegativeFloat
    """SD of where the middle of the head lies along the slices, in slices: arcs are taken in the planes through it."""
    gain: NonNegativeFloat
    """SD of a series' normalization from visit to visit, as a share: fractions above a level hang on it."""
    seed: int
    """Seed of the perturbations; each hip-visit adds its own key."""

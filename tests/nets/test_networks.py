"""Shapes and promises of the networks, untrained."""

import pytest
import torch

from tasks.nets.encoder import HEADS, ORDINAL, SliceClassifier, VisitEncoder, summarize
from tasks.nets.segmenters import HipSegmenter, VesselNet


@pytest.fixture(scope="module")
def encoder() -> VisitEncoder:
    torch.manual_seed(0)
    return VisitEncoder("mobilenet_v3_small", 3, 0.1, 32, 64).eval()


def test_a_hip_visit_is_read_by_itself(encoder: VisitEncoder) -> None:
    torch.manual_seed(1)
    slices, where = torch.rand(3, 5, 3, 48, 48), torch.rand(3, 5)
    with torch.no_grad():
        together, alone = encoder(slices, where), encoder(slices[1:2], where[1:2])
    assert together["slice"].shape == (3, 5) and together["cells"].shape == (3, 5, 2, 3, 3)
    for name in together:
        torch.testing.assert_close(together[name][1:2], alone[name], rtol=1e-4, atol=1e-5)


def test_heads_are_named_quantities(encoder: VisitEncoder) -> None:
    with torch.no_grad():
        out = encoder(torch.rand(2, 4, 3, 48, 48), torch.zeros(2, 4))
    table = summarize(out)
    assert table.shape == (2, len(HEADS)) and torch.isfinite(table).all()
    stage = table[:, HEADS.index("stage")]
    assert ((stage >= 0) & (stage <= ORDINAL["stage"])).all()


def test_the_place_of_a_lesion_reaches_the_slice_vector() -> None:
    """Global average pooling would give nearly the same vector for a lesion that lies medially or laterally."""
    torch.manual_seed(0)
    encoder = VisitEncoder("mobilenet_v3_small", 3, 0.0, 32, 64)
    image = 0.8 + 0.05 * torch.rand(2, 1, 3, 96, 96)
    image[0, ..., 20:44, 8:32] = 0.2
    image[1] = image[0].flip(-1)
    with torch.no_grad():
        (medial, lateral), _ = encoder.look(image, torch.zeros(2, 1))
    assert float((medial - lateral).norm() / medial.norm()) > 0.5


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (112, 112)])
def test_segmenters_keep_the_grid(size: tuple[int, int]) -> None:
    hip, vessel = HipSegmenter("mobilenet_v3_small", 3, 2, 32, 32), VesselNet("mobilenet_v3_small", 6, 4, 8, 8)
    with torch.no_grad():
        assert hip.eval()(torch.zeros(1, 3, *size)).shape == (1, 2, *size)
        assert vessel.eval()(torch.zeros(1, 6, *size)).shape == (1, 4, *size)


def test_slice_classifier_gives_one_logit_a_slice() -> None:
    assert SliceClassifier("resnet18", 2, 0.0).eval()(torch.zeros(3, 2, 32, 32)).shape == (3,)

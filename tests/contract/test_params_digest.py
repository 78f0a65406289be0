"""The digest of a section is that of its content, not of its order or layout."""

from tasks.domain.params import Section


class Toy(Section):
    a: int
    b: float


def test_order_does_not_matter_and_values_do() -> None:
    assert Toy(a=1, b=2.0).digest() == Toy(b=2.0, a=1).digest()
    assert Toy(a=1, b=2.0).digest() != Toy(a=2, b=2.0).digest()

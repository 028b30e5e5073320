"""What a wave can be expected to tell: the planning formulas (95 % margin of an NPS in points)."""

from __future__ import annotations

import math

#: Shares assumed until a campaign has answers of its own: 50 % promoters, 20 % detractors.
PROMOTERS, DETRACTORS = 0.5, 0.2
Z_95 = 1.96


def expected_margin(
    answers: int, population: int, promoters: float = PROMOTERS, detractors: float = DETRACTORS
) -> float | None:
    """Half the width of the 95 % interval in points, with the correction for a small known population.

    The variance of one answer scored +1, 0, -1 is p + d - (p - d)^2; it is divided by n and multiplied by
    (N - n) / (N - 1). None where no answer is expected.
    """
    if answers < 1:
        return None
    variance = promoters + detractors - (promoters - detractors) ** 2
    correction = 1.0 if population <= 1 else max(0.0, (population - answers) / (population - 1))
    return round(100 * Z_95 * math.sqrt(variance / answers * correction), 1)

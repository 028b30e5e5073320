"""Scores: what 0 to 10 means."""

from __future__ import annotations

from enum import StrEnum


class Category(StrEnum):
    """The band of a score: promoter 9-10, passive 7-8, detractor 0-6."""

    PROMOTER = "promoter"
    PASSIVE = "passive"
    DETRACTOR = "detractor"


def category(score: int) -> Category:
    """The band of a score from 0 to 10. Raises ValueError outside."""
    if not 0 <= score <= 10:
        raise ValueError(f"a score is a whole number from 0 to 10, not {score}")
    if score >= 9:
        return Category.PROMOTER
    return Category.PASSIVE if score >= 7 else Category.DETRACTOR

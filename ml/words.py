"""The words of learning, beside those of the house in positions/words.py."""

from enum import StrEnum


class ModelStatus(StrEnum):
    CANDIDATE = "candidate"
    CHAMPION = "champion"
    ARCHIVED = "archived"


class Gate(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


class PredictionMode(StrEnum):
    OFF = "off"
    SHADOW = "shadow"
    FILTER = "filter"


class Decision(StrEnum):
    TAKE = "take"
    SKIP = "skip"
    ABSTAIN = "abstain"

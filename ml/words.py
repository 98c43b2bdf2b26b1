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


class Label(StrEnum):
    """What a model learns to foresee: `net`, how the trade ended as it was executed, after costs; `plan`, how it would
    have ended had nothing but its stop, its target and the session's close ended it."""

    NET = "net"
    PLAN = "plan"


class Algorithm(StrEnum):
    """`xgboost` is the model, the others are its challengers; `river` learns on after every closed trade."""

    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    LOGISTIC = "logistic"
    RIVER = "river"


class PredictionMode(StrEnum):
    OFF = "off"
    SHADOW = "shadow"
    FILTER = "filter"


class Decision(StrEnum):
    TAKE = "take"
    SKIP = "skip"
    ABSTAIN = "abstain"


#: Why a signal was not taken where the model in filter mode said so.
MODEL_SKIPS = "model_skips"

VERDICTS = {
    Gate.PASS: "It may be promoted with promote_model; until then it serves nothing.",
    Gate.FAIL: "It stays a candidate and decides nothing.",
    Gate.INSUFFICIENT_DATA: "Too little data to judge: nothing is decided by it. Train again with more closed trades.",
}


def trained_on(trades: int, windows: int) -> str:
    """What the stored model learned from, in words: the training part of the newest window."""
    return f"{trades:,} trades (the last of {windows} windows)"


def tested_on(trades: int, sessions: int, windows: int) -> str:
    """What its figures rest on, in words: the test parts of all windows, each scored by its own window's model."""
    return f"{trades:,} trades of {sessions:,} sessions ({windows} windows, none seen in training)"

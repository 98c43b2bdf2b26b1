from collections import Counter

from ml.impact import PLANNED, RULES
from positions.words import ExitReason


def test_every_exit_reason_is_a_rules_doing_or_the_plans_own_or_a_users():
    assert Counter([*RULES, *PLANNED, ExitReason.MANUAL]) == Counter(ExitReason)

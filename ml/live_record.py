"""What a model said of live signals, and how their plans ended."""

from ml.gate_worth import GateWorth, JudgedPlans, gate_worth
from ml.models import MLModel, Performance


def live_record(model: MLModel) -> GateWorth | None:
    """Of the book it serves (its own, if it never served), in the sessions stored after those that it was trained and
    judged on; None where it said nothing of a signal whose plan's end is certain. One query."""
    stored = Performance.objects.filter(book=model.serving_book or model.book, session__gt=model.test_to).order_by()
    return gate_worth(
        {
            session: [JudgedPlans(**each) for each in judged if each["model"] == model.pk]
            for session, judged in stored.values_list("session", "judged")
        }
    )

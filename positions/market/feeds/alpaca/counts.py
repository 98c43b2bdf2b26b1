"""What is counted of a live session."""

from dataclasses import dataclass


@dataclass(slots=True)
class FeedCounts:
    """What became of the bars of a session.

    `late`: came after their minute was released, of those `too_late`: and after the next one too, so that nothing but
    the stored bars learns of them. `from_rest`: bars the stream did not bring. `gaps`: minutes released without an
    answer from REST although the stream had been away.
    """

    late: int = 0
    too_late: int = 0
    repeated: int = 0
    revised: int = 0
    quarantined: int = 0
    foreign: int = 0
    from_rest: int = 0
    rest_failures: int = 0
    gaps: int = 0
    connections: int = 0

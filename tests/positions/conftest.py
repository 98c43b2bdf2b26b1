import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import structlog

if TYPE_CHECKING:
    from tests.positions.stand_in import StandIn


@pytest.fixture
def quiet() -> Iterator[None]:
    """What is logged tens of thousands of times is not written."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="module")
def running_alpaca() -> Iterator["StandIn"]:
    from tests.positions.stand_in import StandIn  # the SDK's import takes seconds

    with StandIn() as running:
        yield running


@pytest.fixture
def alpaca(running_alpaca: "StandIn") -> "StandIn":
    """The simulated Alpaca at Monday's open, with nothing in it."""
    running_alpaca.reset()
    return running_alpaca

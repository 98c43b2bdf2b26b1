"""How market data of Alpaca may be denied."""


class AlpacaError(RuntimeError):
    """The message is one line: what Alpaca was asked, what it said, what to do."""


class AlpacaRefused(AlpacaError):
    """Alpaca understood and said no: keys, subscription, parameters. Asking again will not help."""


class AlpacaUnreachable(AlpacaError):
    """Alpaca did not answer, or not sensibly, in the attempts allowed."""

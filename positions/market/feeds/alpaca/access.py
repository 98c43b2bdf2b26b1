"""With what Alpaca's market data are asked for."""

from dataclasses import dataclass

from positions.words import Feed


@dataclass(frozen=True, slots=True)
class AlpacaAccess:
    """Keys, the feed that every request names, and another origin (http://host:port) than Alpaca's own."""

    key: str
    secret: str
    feed: Feed
    origin: str = ""

    def __repr__(self) -> str:
        return f"AlpacaAccess(feed={self.feed}, origin={self.origin!r})"

    @property
    def stream_url(self) -> str | None:
        return f"{self.origin.replace('http', 'ws', 1)}/v2/{self.feed}" if self.origin else None

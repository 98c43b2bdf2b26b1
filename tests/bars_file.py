"""A bars file as a user would bring one."""

from pathlib import Path

import numpy as np

from positions.market.feeds.simulated import SimulatedMarket


def write_csv(path: Path, market: SimulatedMarket, symbols: int = 12) -> Path:
    """All sessions of a simulated market, those of its warm-up too, with its first stocks."""
    lines = ["symbol,timestamp,open,high,low,close,volume"]
    for bars, _ in market.sessions():
        for batch in bars.batches():
            values = np.stack((batch.open, batch.high, batch.low, batch.close, batch.volume), axis=1)[:symbols].tolist()
            lines += [
                f"{symbol},{batch.start.isoformat()},{opened},{high},{low},{close},{int(volume)}"
                for symbol, (opened, high, low, close, volume) in zip(market.universe.symbols, values, strict=False)
                if np.isfinite(close)
            ]
    path.write_text("\n".join(lines) + "\n")
    return path

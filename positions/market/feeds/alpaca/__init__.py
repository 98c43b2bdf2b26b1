"""Alpaca's market data: history over REST, and live minute bars from its stream with REST behind it.

Bars carry their start. They appear about a second after their minute; late prints change them about thirty seconds
later (the stream's `updatedBars`). IEX has no bar for a minute without an eligible trade there: it stays missing.

Only `history` and `stream` know Alpaca's SDK. `wire` reads bars as both of them bring them, `minutes` puts a session's
minutes together without network or clock, and `feed` joins all of it for the thread that trades.
"""

"""The inside of the simulated Alpaca (see ../server.py), from the bottom up:

faults and rules (what can go wrong, how it behaves), orders, account and tape (the market) <- refusals, venue (Alpaca's
rules, in process) <- wire (its JSON) <- trading_api, data_api, streams.
"""

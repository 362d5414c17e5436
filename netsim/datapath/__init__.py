"""Batches of packets through a network: compiled tables, with the interpreter behind them for what they cannot say."""

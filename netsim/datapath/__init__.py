"""Batches of packets through a network: the compiled tables, with the interpreter behind them for whatever they cannot say."""

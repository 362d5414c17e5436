"""Trails: the way of one kind of first packet as a straight line of machine code.

The slow path interprets: at every hook it asks which chains there are, at every rule which constraints, at every route
which prefixes, and the answers hardly differ from one first packet to the next. A *trail* is what remains when the
questions whose answers are the same have been asked once: it is recorded by running the kernels' own text (the Python
functions that numba compiles) on symbols instead of numbers, so what a rule or a route means is still said in one place.

    the kernels' text ──record──▶ operations, guards ──merge──▶ what differs between packets ──emit──▶ loops over a block
            (samples)                          (alike in all: a constant, guarded)                         of packets

Whatever a sample took for granted is a *guard*: a packet that fails one has done nothing yet, and is taken by the slow path.
"""

"""The reference network stack: one packet, every branch, every step explained. See ``machine`` for how it works."""

from netsim.interpreter.api import trace, trace_reply, trace_with_states
from netsim.interpreter.origin import LocalOrigin, Origin, WireOrigin, source_for
from netsim.interpreter.outcome import Disposition, Outcome
from netsim.interpreter.state import State

__all__ = [
    "Disposition",
    "LocalOrigin",
    "Origin",
    "Outcome",
    "State",
    "WireOrigin",
    "source_for",
    "trace",
    "trace_reply",
    "trace_with_states",
]

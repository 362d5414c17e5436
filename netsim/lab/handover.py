"""Values on their way into another process of this same program, which shares no memory with this one: pickled.

A network remembers what it has derived in caches of its methods, which pickle cannot name. They travel empty.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable
from types import MethodType
from typing import Any

from netsim.errors import NetsimError


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        method = getattr(value, "__wrapped__", None)
        if isinstance(value, functools._lru_cache_wrapper) and isinstance(method, MethodType):
            return _cached, (method, value.cache_parameters()["maxsize"])
        return NotImplemented


def _cached(method: Callable[..., Any], maxsize: int | None) -> Callable[..., Any]:
    return functools.lru_cache(maxsize)(method)


def dumps(value: object) -> bytes:
    """For ``pickle.loads``. NetsimError for what cannot travel: a function that is no module's, a socket."""
    written = io.BytesIO()
    try:
        _Pickler(written).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise NetsimError(f"this cannot be handed over to another process: {error}") from None
    return written.getvalue()

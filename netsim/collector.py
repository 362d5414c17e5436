"""Python's cyclic collector, and work that makes up to millions of values with hardly a cycle among them.

Walking them again and again would cost more than half of a large rendering, and a sixth of compiling the kernels.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def resting() -> Iterator[None]:
    """The collector does nothing meanwhile."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()

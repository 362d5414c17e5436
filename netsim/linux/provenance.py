"""Why a kernel object exists: the Kubernetes object and the input line behind it."""

from __future__ import annotations

import msgspec

from netsim.errors import Source


class Provenance(msgspec.Struct, frozen=True, gc=False):
    """``because`` is one phrase for a reader ("Service shop/cart:http, endpoint 10.244.2.7:8080")."""

    because: str
    source: Source | None = None

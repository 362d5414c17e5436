"""``python -m netsim.datapath.fill_cache``: compile the engine's kernels into the cache, the last ones first.

The engine starts this beside itself when it is first used on a machine (``netsim.compiled.link``): one goes through the list
from its beginning, the other from its end, and they meet where they meet.
"""

from __future__ import annotations

from netsim import collector
from netsim.compiled.link import units_for
from netsim.compiled.unit import compile_only
from netsim.datapath.engine import Datapath
from netsim.linux.network import StaticNetwork


def main() -> None:
    arguments = Datapath(StaticNetwork({}), compiled=False).kernel_arguments()
    with collector.resting():
        compile_only(reversed(units_for(*arguments)))


if __name__ == "__main__":
    main()

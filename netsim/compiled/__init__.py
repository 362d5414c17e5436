"""The compiled datapath: kernel objects become tables, and batches of packets run through them (numba).

Network ──compiler──▶ tables ──┬─▶ fast path   packets of flows that are known: two cache lines each
   (values)         (faulted   ├─▶ slow path   first packets: the machine walks namespaces, hooks, chains and routes
                     in, lazy)  └─▶ interpreter what the tables cannot say, packet by packet, counted
"""

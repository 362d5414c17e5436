"""Measuring the datapath: one workload, timed; the backends of a cluster side by side; the real kernel beside them."""

"""The lab: a cluster's network built from real Linux network namespaces, and compared with the interpreter."""

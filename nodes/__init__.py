"""The nodes: schema in, one call into the library, NodeOutput out. One file per family."""

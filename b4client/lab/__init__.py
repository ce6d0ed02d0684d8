"""The laboratory: the network side (server, lwAFTR, topologies) for demonstrations and tests. Not for production."""

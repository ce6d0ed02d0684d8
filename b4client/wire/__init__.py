"""Bytes to nouns and back. No clock, no log, no state, no policy; errors are :class:`WireError` alone."""

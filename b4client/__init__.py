"""b4client: Lightweight 4over6 / MAP-E customer-edge client agent for Linux."""

__version__ = "0.1.0"

"""The kernel: makes a :class:`~b4client.model.softwire.SoftwireConfig` true, keeps it true, takes it away."""

"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# The tests share two processors with tests in network namespaces and a whole kernel: how fast examples are made, or one
# is run, says nothing. pytest's own timeout ends what hangs.
settings.register_profile("b4client", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("b4client")

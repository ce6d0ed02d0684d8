"""Behaviour: ``(event, now) -> effects``. No I/O, no clock; time and randomness are arguments."""

"""Trio: the one loop on the message path, connections, listeners, timers and signals."""

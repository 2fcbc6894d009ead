"""The one loop on the message path, connections, listeners, timers and signals; and trio."""

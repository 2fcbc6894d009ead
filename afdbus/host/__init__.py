"""The Linux underneath: credentials, users, keyrings, the log, systemd, the process itself."""

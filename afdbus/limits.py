"""Every number that bounds something, with its source.

The constants are the D-Bus specification's; `Limits` are dbus-daemon's, settable by `<limit>`.
"""

from __future__ import annotations

from typing import NamedTuple

# D-Bus specification, "Message Protocol" and "Valid Signatures".
MAX_MESSAGE = 128 * 1024 * 1024
MAX_ARRAY = 64 * 1024 * 1024
MAX_NAME = 255
MAX_SIGNATURE = 255
MAX_ARRAY_DEPTH = 32
MAX_STRUCT_DEPTH = 32
MAX_DEPTH = 64  # arrays, structs and variants together, counted through variants

# dbus-daemon: a match rule's text, in bytes, and the highest argN.
MAX_MATCH_RULE = 1024
MAX_MATCH_ARG = 63

# The kernel's SCM_MAX_FD.
MAX_FDS = 253


class Limits(NamedTuple):
    """The limits of one bus; defaults are those compiled into dbus-daemon 1.14.

    Sizes in bytes, times in milliseconds; a `reply_timeout` of -1 is "never".
    """

    max_incoming_bytes: int = 127 * 1024 * 1024
    max_incoming_unix_fds: int = 64
    max_outgoing_bytes: int = 127 * 1024 * 1024
    max_outgoing_unix_fds: int = 64
    max_message_size: int = 32 * 1024 * 1024
    max_message_unix_fds: int = 16
    service_start_timeout: int = 25_000
    auth_timeout: int = 30_000
    pending_fd_timeout: int = 150_000
    max_completed_connections: int = 2048
    max_incomplete_connections: int = 64
    max_connections_per_user: int = 256
    max_pending_service_starts: int = 512
    max_names_per_connection: int = 512
    max_match_rules_per_connection: int = 512
    max_replies_per_connection: int = 128
    reply_timeout: int = -1
    max_containers: int = 512
    max_containers_per_user: int = 16
    max_container_metadata_bytes: int = 4096
    max_connections_per_container: int = 8

"""The handshake before the first message, as two machines without I/O: bytes in, bytes out."""

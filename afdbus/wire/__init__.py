"""Bytes and values: what the D-Bus specification says of names, signatures, messages, addresses.

Everything here is a pure function or a small machine fed with bytes.  Nothing knows a bus.
"""

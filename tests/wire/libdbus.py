"""What libdbus, the reference's own library, says of signatures and bodies (through ctypes)."""

from __future__ import annotations

import ctypes
import functools
import os

import pytest

from afdbus.wire.encode import encode


class _Error(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("message", ctypes.c_char_p),
        ("bits", ctypes.c_uint),
        ("padding", ctypes.c_void_p),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libdbus-1.so.3")
    except OSError:
        if os.environ.get("AFDBUS_TEST_REQUIRE") == "1":
            pytest.fail("libdbus is not installed, and AFDBUS_TEST_REQUIRE=1")
        pytest.skip("libdbus is not installed")
    library.dbus_message_demarshal.restype = ctypes.c_void_p
    library.dbus_message_unref.argtypes = [ctypes.c_void_p]
    return library


def is_signature(text: str) -> bool:
    return bool(_library().dbus_signature_validate(text.encode("latin-1"), None))


def is_valid(signature: str, little: bool, body: bytes) -> bool:
    """Whether a signal with this signature and body is a message to libdbus."""
    library = _library()
    fields = [(1, ("o", "/")), (2, ("s", "a.b")), (3, ("s", "C"))]
    if signature:
        fields.append((8, ("g", signature)))
    header = encode("yyyyuua(yv)", b"Bl"[little], 4, 0, 1, len(body), 1, fields, little=little)
    message = header + bytes(-len(header) % 8) + body
    error = _Error()
    library.dbus_error_init(ctypes.byref(error))
    made = library.dbus_message_demarshal(message, len(message), ctypes.byref(error))
    if made:
        library.dbus_message_unref(made)
    else:
        library.dbus_error_free(ctypes.byref(error))
    return bool(made)

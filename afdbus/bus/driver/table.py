"""What a table of driver methods is made of, and the table's own introspection data.

The interfaces are listed in `interfaces.py`; handlers get the calling peer, the call's header and
the decoded arguments, and return the marshalled body of the reply.  Descriptors that they return
are ours to release.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from afdbus.wire.fds import Fds
from afdbus.wire.signature import split

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus

# The reply's body; or that and a deed for after the reply was sent, or the descriptors in it.
Answer = bytes | tuple[bytes, Callable[[], None] | Fds]

# The handler gets the whole call instead of its header, and may answer later (None).
WHOLE = 8
ANY_PATH, PRIVILEGED, FIRST = 1, 2, 4
ABOUT_NAMES = 16


class Method(NamedTuple):
    """A method of the driver.

    Flags: ANY_PATH, it answers on every object path; PRIVILEGED, only for root and the daemon's own
    user, and no plan stands for it; FIRST, it is the call of a peer without a name; ABOUT_NAMES,
    the answer hangs on nothing but the arguments and who owns which name.
    """

    name: str
    takes: str
    returns: str
    handler: Callable[..., Answer | None]
    flags: int = ANY_PATH


class Property(NamedTuple):
    """A constant property of the driver."""

    name: str
    type: str
    getter: Callable[[Bus], Any]


class Signal(NamedTuple):
    """A signal of the driver; arguments are (name or empty, type)."""

    name: str
    arguments: tuple[tuple[str, str], ...] = ()


class Interface(NamedTuple):
    """An interface of the driver.  `listed`: named in the property Interfaces."""

    name: str
    methods: tuple[Method, ...]
    signals: tuple[Signal, ...] = ()
    properties: tuple[Property, ...] = ()
    any_path: bool = True
    listed: bool = False


_HEAD = """\
<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
"""

_CONSTANT = (
    '      <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/>\n'
)

# Where the driver's object is found when somebody looks from above.
_BELOW = {"/": "org/freedesktop/DBus", "/org": "freedesktop/DBus", "/org/freedesktop": "DBus"}


def introspection(interfaces: tuple[Interface, ...], path: str) -> str:
    """The introspection data of the driver as seen at `path`, in dbus-daemon's very form.

    Away from its own path only the interfaces that answer there are listed.
    """
    xml = [_HEAD]
    canonical = path == "/org/freedesktop/DBus"
    for interface in interfaces:
        if not (canonical or interface.any_path):
            continue
        xml.append(f'  <interface name="{interface.name}">\n')
        for method in interface.methods:
            if not (canonical or method.flags & ANY_PATH):
                continue
            xml.append(f'    <method name="{method.name}">\n')
            for direction, signature in (("in", method.takes), ("out", method.returns)):
                for type_ in split(signature):
                    xml.append(f'      <arg direction="{direction}" type="{type_}"/>\n')
            xml.append("    </method>\n")
        for name, type_, _ in interface.properties:
            xml.append(f'    <property name="{name}" type="{type_}" access="read">\n')
            xml.append(_CONSTANT + "    </property>\n")
        for signal in interface.signals:
            xml.append(f'    <signal name="{signal.name}">\n')
            for name, type_ in signal.arguments:
                named = f' name="{name}"' if name else ""
                xml.append(f'      <arg type="{type_}"{named}/>\n')
            xml.append("    </signal>\n")
        xml.append("  </interface>\n")
    if path in _BELOW:
        xml.append(f'  <node name="{_BELOW[path]}"/>\n')
    xml.append("</node>\n")
    return "".join(xml)

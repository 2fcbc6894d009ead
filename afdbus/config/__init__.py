"""dbus-1 XML becomes one immutable value.  The only room that knows lxml."""

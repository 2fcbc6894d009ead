"""The object org.freedesktop.DBus: a table of methods and one small module per concern."""

"""dbus-1 XML becomes one immutable value: `load(path) -> Config`.

`load` reads files and follows includes, `document` is the XML (the only user of lxml), `elements`
and `policies` know what each element means, `users` looks names up.  `check` reads on where `load`
stops, and tells all that is wrong.
"""

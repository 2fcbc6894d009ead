"""Who may connect, own a name, send and receive, by the rules of dbus-daemon(1).

A question in, a verdict out: no sockets, no files, no users but those it is told of.

`rules` are the sentences, `decide` finds the last one that fits, `ruleset` says whose rules count.
`explain` finds the rule that would turn a verdict, `shadow` rules that never decide, and `written`
writes rules as XML.
"""

"""Contents of service files, and whether dbus-daemon reads them."""

from __future__ import annotations

SERVICE = b"[D-BUS Service]\nName=%s\nExec=/bin/false\n"

# (content, name)
READ: list[tuple[bytes, str]] = [
    (SERVICE % b"com.example.Plain", "com.example.Plain"),
    (b"[D-BUS Service]\r\nName=com.example.Crlf\r\nExec=x\r\n", "com.example.Crlf"),
    (b"[D-BUS Service]\rName=com.example.Cr\rExec=x", "com.example.Cr"),
    (b"# x\n\n  \t\n[D-BUS Service]\n#y\nName=com.example.Note\nExec=x\n", "com.example.Note"),
    (b"[D-BUS Service]\nName  =   com.example.Blank \nExec=x\n", "com.example.Blank "),
    (b"[D-BUS Service]\nName=a\\s\\t\\\\s\\n\\r.Escaped\nExec=x\n", "a \t\\s\n\r.Escaped"),
    (b"[D-BUS Service]\nName=com.example.Twice\nExec=x\nName=no\n", "com.example.Twice"),
    (b"[D-BUS Service]\nName[de]=no\nName=com.example.Word\nExec=x\n", "com.example.Word"),
    (b"[D-BUS Service]\nName[=no\nName=com.example.Odd\nExec=x\n", "com.example.Odd"),
    (SERVICE % b"com.example.First" + SERVICE % b"no", "com.example.First"),
    (b"[x]\nName=no\n" + SERVICE % b"com.example.Other" + b"[~!]\nName=no\n", "com.example.Other"),
    (b"[D-BUS Service]\nName=com.example.None\nExec=\n", "com.example.None"),
    # no name at all, and names that nobody can own
    (SERVICE % b"", ""),
    (SERVICE % b"h/B", "h/B"),
    (SERVICE % b":77.77", ":77.77"),
    (SERVICE % (b"a." + b"b" * 300), "a." + "b" * 300),
    (SERVICE % "com.example.ä".encode(), "com.example.ä"),
]

BROKEN = [
    b"",
    b"Name=com.example.B\nExec=x\n",
    b"[D-BUS Service]\nName=com.example.B\n",
    b"[D-BUS Service]\nExec=x\n",
    b"[Other]\nName=com.example.B\nExec=x\n",
    b"[D-BUS Service]\n[Other]\nName=com.example.B\nExec=x\n",
    b"[D-BUS Service]\n" + SERVICE % b"com.example.B",
    b" [D-BUS Service]\nName=com.example.B\nExec=x\n",
    b"[D-BUS Service] \nName=com.example.B\nExec=x\n",
    b"[]\n" + SERVICE % b"com.example.B",
    b"[\xc3\xa4]\n" + SERVICE % b"com.example.B",
    b"[a[b]\n" + SERVICE % b"com.example.B",
    SERVICE % b"com.example.B" + b"nonsense\n",
    SERVICE % b"com.example.B" + b"=x\n",
    SERVICE % b"com.example.B" + b" key=x\n",
    SERVICE % b"com.example.B" + b"key_1=x\n",
    SERVICE % b"com.example.B" + b"key\t=x\n",
    SERVICE % b"com.example.B" + b"key=\\x\n",
    SERVICE % b"com.example.B" + b"key=x\\\n",
    SERVICE % b"com.example.B\xff",
    SERVICE % b"com.example.B" + b"# \xff\n",
    SERVICE % b"com.example.B" + b"#\0\n",
    SERVICE % b"com.example.B\xed\xa0\x80",
]

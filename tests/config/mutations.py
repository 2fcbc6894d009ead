"""Configuration files that are nearly right: a valid one with a few changes made at random."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from hypothesis import strategies as st


@dataclass
class Node:
    """An element; text and attributes are written as they are, right or wrong."""

    name: str
    attributes: list[tuple[str, str]] = field(default_factory=list)
    inside: list[Node | str] = field(default_factory=list)

    def __str__(self) -> str:
        attributes = "".join(f' {name}="{value}"' for name, value in self.attributes)
        return f"<{self.name}{attributes}>{''.join(map(str, self.inside))}</{self.name}>"

    def all(self) -> list[Node]:
        """The element and all below it."""
        below = [node for child in self.inside if isinstance(child, Node) for node in child.all()]
        return [self, *below]


def element(name: str, text: str = "", /, **attributes: str) -> Node:
    return Node(name, list(attributes.items()), [text] if text else [])


def policy(*rules: Node, **attributes: str) -> Node:
    return Node("policy", list(attributes.items()), [*rules])


# All elements and attributes there are; no `listen` (nobody shall bind what chance says).
ELEMENTS = [
    element("type", "session"),
    element("keep_umask"),
    element("syslog"),
    element("allow_anonymous"),
    element("auth", "EXTERNAL"),
    element("servicehelper", "helper"),
    element("servicedir", "services"),
    element("standard_session_servicedirs"),
    element("standard_system_servicedirs"),
    element("include", "good.conf", ignore_missing="no"),
    element("include", "missing.conf", ignore_missing="yes"),
    element("include", "broken.conf", if_selinux_enabled="yes"),
    element("include", "missing.conf", ignore_missing="yes", selinux_root_relative="yes"),
    element("includedir", "some.d"),
    element("limit", "10", name="max_names_per_connection"),
    element("limit", "10", name="max_message_unix_fds"),
    element("limit", "1000000", name="max_message_size"),
    element("apparmor", mode="enabled"),
    Node("selinux", [], [element("associate", own="a.b", context="c")]),
    policy(
        element("allow", send_destination="*", eavesdrop="true"),
        element("deny", send_interface="a.b", send_member="M", send_path="/", send_type="signal"),
        element("allow", send_error="a.E", send_requested_reply="true", log="true"),
        element("deny", send_destination_prefix="a", min_fds="1", max_fds="2"),
        element("deny", send_broadcast="true", send_type="signal"),
        element("allow", user="*"),
        element("deny", group="root"),
        context="default",
    ),
    policy(
        element("allow", own="a.b"),
        element("allow", own_prefix="a"),
        element("deny", receive_sender="a.b", receive_interface="a.i", receive_member="M"),
        element("deny", receive_error="a.E", receive_requested_reply="false"),
        element("deny", receive_path="/", receive_type="error", eavesdrop="true"),
        user="root",
    ),
    policy(element("deny", own="*"), group="no-such-group"),
    policy(element("allow", user="root"), at_console="true"),
    policy(context="mandatory"),
]

# `fork`, `user`, `pidfile`, `listen` mean something to the start itself, which other tests look at.
NAMES = sorted({node.name for top in ELEMENTS for node in top.all()} | {"bees", "Policy", "d:type"})
ATTRIBUTES = sorted(
    {name for top in ELEMENTS for node in top.all() for name, _ in node.attributes}
    | {"bees", "xml:lang", "xmlns", "Own"}
)
VALUES = [
    "", "*", "true", "false", "yes", "no", "default", "mandatory", "root", "0", "-1", "1", "0x10",
    "33554432", "33554433", "2147483647", "2147483648", "9223372036854775808", "5 apples", " 5",
    "signal", "method_call", "any", "a.b", "/", "enabled", "required", "max_replies_per_connection",
    "EXTERNAL", "external", "good.conf", "broken.conf", "missing.conf", "some.d", "&lt;", "&#65;",
    "&nope;", "<", "no-such-user", "\u00e9",
]  # fmt: skip
TEXTS = [
    " ", "\n", "x", "&amp;", "&nope;", "<!-- x -->", "<![CDATA[ ]]>", "<![CDATA[x]]>", "<?x y?>",
    "]]>", "<", "&", "\u00a0", "\x0c", "&#0;", "&#x20;",
]  # fmt: skip
HEADS = [
    "", "", "", '<?xml version="1.0" encoding="UTF-8"?>\n', '<?xml version="1.1"?>', " ",
    "\n<!-- x -->",
    '<!DOCTYPE busconfig SYSTEM "busconfig.dtd">', "<!DOCTYPE busconfig [<!ENTITY nope 'x'>]>",
    "<!DOCTYPE busconfig [<!ATTLIST policy context CDATA 'default'>]>", ' <?xml version="1.0"?>',
    "<!DOCTYPE other>", "x",
]  # fmt: skip
CHANGES = [
    "drop", "double", "move", "rename", "drop attribute", "add attribute", "rename attribute",
    "change value", "change value", "change text", "add text", "swap",
]  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> str:
    """The text of a file; now and then it is valid."""
    chosen = draw(st.lists(st.sampled_from(ELEMENTS), min_size=1, max_size=4))
    root = Node("busconfig", [], [element("listen", "unix:tmpdir=/tmp")])
    root.inside += [copy.deepcopy(node) for node in chosen]
    for _ in range(draw(st.integers(0, 3))):
        change(draw, root)
    text = draw(st.sampled_from(HEADS)) + str(root)
    if draw(st.integers(0, 30)) == 30:
        text = text[: draw(st.integers(0, len(text)))]
    return text


def change(draw: st.DrawFn, root: Node) -> None:
    """Change something somewhere below `root`, but for the first element in it."""
    first = root.inside[0]
    nodes = [node for node in root.all() if node is not first and node is not root]
    if not nodes:
        return
    node = draw(st.sampled_from(nodes))
    parent = next(other for other in root.all() if any(child is node for child in other.inside))
    place = next(i for i, child in enumerate(parent.inside) if child is node)
    what = draw(st.sampled_from(CHANGES))
    match what:
        case "drop":
            del parent.inside[place]
        case "double":
            parent.inside.insert(place, copy.deepcopy(node))
        case "move" | "swap":
            del parent.inside[place]
            left = [other for other in root.all() if other is not first]
            draw(st.sampled_from(left)).inside.insert(1 if what == "swap" else 99, node)
        case "rename":
            node.name = draw(st.sampled_from(NAMES))
        case "add attribute":
            name, value = draw(st.sampled_from(ATTRIBUTES)), draw(st.sampled_from(VALUES))
            node.attributes.append((name, value))
        case "change text":
            if all(isinstance(child, str) for child in node.inside):
                node.inside = [draw(st.sampled_from(VALUES))]
        case "add text":
            text = draw(st.sampled_from(TEXTS))
            node.inside.insert(draw(st.integers(0, len(node.inside))), text)
        case _:
            change_attribute(draw, node, what)


def change_attribute(draw: st.DrawFn, node: Node, what: str) -> None:
    if not node.attributes:
        return
    place = draw(st.integers(0, len(node.attributes) - 1))
    name, value = node.attributes[place]
    if what == "drop attribute":
        del node.attributes[place]
    elif what == "rename attribute":
        node.attributes[place] = draw(st.sampled_from(ATTRIBUTES)), value
    else:
        node.attributes[place] = name, draw(st.sampled_from(VALUES))

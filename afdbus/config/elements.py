"""What the elements inside `<busconfig>` mean (dbus-daemon(1), "Configuration file").

One table: name, attributes it may have, whether it wants text, and the function that writes down
in a draft what it says.  `<include>` and `<includedir>` read further files and are `load`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from afdbus.config import servicedirs
from afdbus.config.document import Element
from afdbus.config.draft import Draft
from afdbus.config.model import ServiceDirectory
from afdbus.config.paths import beside
from afdbus.config.place import Place, check_attributes, no_children, no_text
from afdbus.config.users import strtol
from afdbus.limits import Limits

_INT_MAX = 2**31 - 1

# These may be any long; all others must be an int.
_LONG_LIMITS = frozenset(
    (
        "max_incoming_bytes",
        "max_incoming_unix_fds",
        "max_outgoing_bytes",
        "max_outgoing_unix_fds",
        "max_message_size",
        "max_message_unix_fds",
    )
)


def _type(draft: Draft, element: Element, place: Place) -> None:
    draft.type = element.text


def _user(draft: Draft, element: Element, place: Place) -> None:
    draft.user = element.text  # looked up when privileges are dropped, as dbus-daemon does


def _pidfile(draft: Draft, element: Element, place: Place) -> None:
    draft.pidfile = element.text


def _listen(draft: Draft, element: Element, place: Place) -> None:
    draft.listen.append(element.text)


def _auth(draft: Draft, element: Element, place: Place) -> None:
    # dbus-daemon looks at this when it starts, but not when it reloads; a typo is one always.
    if element.text not in ("EXTERNAL", "DBUS_COOKIE_SHA1", "ANONYMOUS"):
        place.refuse(
            f'Unsupported auth mechanism "{element.text}" in bus config file detected. '
            'Supported mechanisms are "EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS".'
        )
    draft.auth.append(element.text)


def _fork(draft: Draft, element: Element, place: Place) -> None:
    draft.fork = True


def _keep_umask(draft: Draft, element: Element, place: Place) -> None:
    draft.keep_umask = True


def _syslog(draft: Draft, element: Element, place: Place) -> None:
    draft.syslog = True


def _allow_anonymous(draft: Draft, element: Element, place: Place) -> None:
    draft.allow_anonymous = True


def _servicehelper(draft: Draft, element: Element, place: Place) -> None:
    draft.servicehelper = beside(place.file, element.text)


def _servicedir(draft: Draft, element: Element, place: Place) -> None:
    draft.add_servicedir(ServiceDirectory(beside(place.file, element.text)))


def _session_servicedirs(draft: Draft, element: Element, place: Place) -> None:
    try:
        for path in servicedirs.transient():
            draft.add_servicedir(ServiceDirectory(path, strict=True, watched=False))
    except OSError as error:
        place.warn(f"Unable to set up transient service directory: {error}")
    for path in servicedirs.session():
        draft.add_servicedir(ServiceDirectory(path))


def _system_servicedirs(draft: Draft, element: Element, place: Place) -> None:
    for path in servicedirs.SYSTEM:
        draft.add_servicedir(ServiceDirectory(path))


def _limit(draft: Draft, element: Element, place: Place) -> None:
    name = element.attributes.get("name")
    if name is None:
        raise place.error('<limit> element must have a "name" attribute')
    found = strtol(element.text)
    if found is None:
        place.refuse(
            f'<limit name="{name}"> element has invalid value '
            f'(could not parse as integer): "{element.text}"'
        )
        found = 0, 0
    value = found[0]
    if name not in Limits._fields:
        raise place.error(f'There is no limit called "{name}"')
    if value < 0:
        raise place.error(f'<limit name="{name}"> must be a positive number, not {value}')
    if value > _INT_MAX and name not in _LONG_LIMITS:
        raise place.error(f'<limit name="{name}"> value is too large: {value}')
    if name == "reply_timeout" and value == 0:
        value = -1  # measured: 0 is "never", too
    draft.limits = draft.limits._replace(**{name: value})


def _selinux(draft: Draft, element: Element, place: Place) -> None:
    for child in element.children:
        inside = place.at(child)
        if child.name != "associate":
            inside.refuse(
                f"Element <{child.name}> not allowed inside <selinux> in configuration file"
            )
            continue
        check_attributes(child, ("own", "context"), inside)
        no_text(child, inside)
        no_children(child, inside)
        if len(child.attributes) != 2:
            inside.refuse(
                'Element <associate> must have attributes own="<servicename>" '
                'and context="<selinux context>"'
            )
            continue
        draft.selinux[child.attributes["own"]] = child.attributes["context"]


def _apparmor(draft: Draft, element: Element, place: Place) -> None:
    mode = element.attributes.get("mode")
    if mode is None:
        return
    if mode not in ("required", "enabled", "disabled"):
        raise place.error(
            'Mode attribute on <apparmor> must have value "required", "enabled" or "disabled", '
            f'not "{mode}"'
        )
    draft.apparmor = mode


class _Form(NamedTuple):
    say: Callable[[Draft, Element, Place], None]
    text: bool = False
    attributes: tuple[str, ...] = ()


_FORMS = {
    "type": _Form(_type, text=True),
    "user": _Form(_user, text=True),
    "pidfile": _Form(_pidfile, text=True),
    "listen": _Form(_listen, text=True),
    "auth": _Form(_auth, text=True),
    "fork": _Form(_fork),
    "keep_umask": _Form(_keep_umask),
    "syslog": _Form(_syslog),
    "allow_anonymous": _Form(_allow_anonymous),
    "servicehelper": _Form(_servicehelper, text=True),
    "servicedir": _Form(_servicedir, text=True),
    "standard_session_servicedirs": _Form(_session_servicedirs),
    "standard_system_servicedirs": _Form(_system_servicedirs),
    "limit": _Form(_limit, text=True, attributes=("name",)),
    "selinux": _Form(_selinux),
    "apparmor": _Form(_apparmor, attributes=("mode",)),
}


def add_element(draft: Draft, element: Element, place: Place) -> None:
    """Write down what a child of `<busconfig>` says. Raises `ConfigError`."""
    form = _FORMS.get(element.name)
    if form is None:
        raise place.error(
            f"Element <{element.name}> not allowed inside <busconfig> in configuration file"
        )
    check_attributes(element, form.attributes, place)
    if element.name != "selinux":
        no_children(element, place)
    if form.text:
        wants_text(element, place)
    else:
        no_text(element, place)
    form.say(draft, element, place)


def wants_text(element: Element, place: Place) -> None:
    """Refuse an empty element; white space is text, and is never trimmed."""
    if not element.text:
        raise place.error(f"XML element <{element.name}> was expected to have content inside it")

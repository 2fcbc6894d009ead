"""The interfaces of the driver, as one table; introspection and look-up are made from it."""

from __future__ import annotations

from afdbus.bus.driver import credentials, dbus, debug, monitoring, standard
from afdbus.bus.driver.table import (
    ABOUT_NAMES,
    ANY_PATH,
    FIRST,
    PRIVILEGED,
    WHOLE,
    Interface,
    Method,
    Property,
    Signal,
)
from afdbus.wire.message import BUS_INTERFACE

INTERFACES: tuple[Interface, ...] = (
    Interface(
        BUS_INTERFACE,
        (
            Method("Hello", "", "s", dbus.hello, ANY_PATH | FIRST),
            Method("RequestName", "su", "u", dbus.request_name),
            Method("ReleaseName", "s", "u", dbus.release_name),
            Method(
                "StartServiceByName", "su", "u", dbus.start_service_by_name, ANY_PATH | WHOLE
            ),
            Method(
                "UpdateActivationEnvironment", "a{ss}", "",
                dbus.update_activation_environment, PRIVILEGED,
            ),
            Method("NameHasOwner", "s", "b", dbus.name_has_owner, ANY_PATH | ABOUT_NAMES),
            Method("ListNames", "", "as", dbus.list_names),
            Method("ListActivatableNames", "", "as", dbus.list_activatable_names),
            Method("AddMatch", "s", "", dbus.add_match),
            Method("RemoveMatch", "s", "", dbus.remove_match),
            Method("GetNameOwner", "s", "s", dbus.get_name_owner, ANY_PATH | ABOUT_NAMES),
            Method("ListQueuedOwners", "s", "as", dbus.list_queued_owners),
            Method("GetConnectionUnixUser", "s", "u", credentials.unix_user),
            Method("GetConnectionUnixProcessID", "s", "u", credentials.unix_process_id),
            Method("GetAdtAuditSessionData", "s", "ay", credentials.adt_audit_session_data),
            Method("GetConnectionSELinuxSecurityContext", "s", "ay", credentials.selinux_context),
            Method("ReloadConfig", "", "", dbus.reload_config),
            Method("GetId", "", "s", dbus.get_id),
            Method("GetConnectionCredentials", "s", "a{sv}", credentials.credentials),
        ),
        (
            Signal("NameOwnerChanged", (("", "s"), ("", "s"), ("", "s"))),
            Signal("NameLost", (("", "s"),)),
            Signal("NameAcquired", (("", "s"),)),
            Signal("ActivatableServicesChanged"),
        ),
        (
            Property("Features", "as", standard.features),
            Property("Interfaces", "as", standard.interfaces),
        ),
    ),
    Interface(
        "org.freedesktop.DBus.Properties",
        (
            Method("Get", "ss", "v", standard.get, 0),
            Method("GetAll", "s", "a{sv}", standard.get_all, 0),
            Method("Set", "ssv", "", standard.set_, 0),
        ),
        (
            Signal(
                "PropertiesChanged",
                (
                    ("interface_name", "s"),
                    ("changed_properties", "a{sv}"),
                    ("invalidated_properties", "as"),
                ),
            ),
        ),
        any_path=False,
    ),
    Interface(
        "org.freedesktop.DBus.Introspectable",
        (Method("Introspect", "", "s", standard.introspect),),
    ),
    Interface(
        "org.freedesktop.DBus.Monitoring",
        (Method("BecomeMonitor", "asu", "", monitoring.become_monitor, PRIVILEGED),),
        any_path=False,
        listed=True,
    ),
    Interface(
        "org.freedesktop.DBus.Debug.Stats",
        (
            Method("GetStats", "", "a{sv}", debug.get_stats, 0),
            Method("GetConnectionStats", "s", "a{sv}", debug.get_connection_stats, 0),
            Method("GetAllMatchRules", "", "a{sas}", debug.get_all_match_rules, 0),
        ),
        any_path=False,
        listed=True,
    ),
    Interface(
        "org.freedesktop.DBus.Peer",
        (
            Method("GetMachineId", "", "s", standard.get_machine_id),
            Method("Ping", "", "", standard.ping),
        ),
    ),
)  # fmt: skip

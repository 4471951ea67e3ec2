"""The configuration: frozen sections, and a loader whose errors name the option's path, the line and what is right."""

from bastion.config.loader import load_config
from bastion.config.sections import (
    Access,
    AccessRule,
    Audit,
    Auth,
    Config,
    Database,
    Engine,
    EngineTls,
    Ldap,
    LocalUsers,
    MaxStartups,
    Network,
    Recording,
    Seconds,
    Section,
    Ssh,
    host_and_port,
)

__all__ = [
    "Access",
    "AccessRule",
    "Audit",
    "Auth",
    "Config",
    "Database",
    "Engine",
    "EngineTls",
    "Ldap",
    "LocalUsers",
    "MaxStartups",
    "Network",
    "Recording",
    "Seconds",
    "Section",
    "Ssh",
    "host_and_port",
    "load_config",
]

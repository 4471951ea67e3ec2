"""The configuration: frozen sections, and a loader whose errors name the option's path, the line and what is right."""

from bastion.config.access import Access, AccessRule
from bastion.config.audit import Audit, Database, Syslog
from bastion.config.auth import Auth, LocalUsers
from bastion.config.certificates import Certificates
from bastion.config.engines import Engine, EngineTls
from bastion.config.lain import LainOwners, LainSso
from bastion.config.ldap import Ldap
from bastion.config.loader import load_config
from bastion.config.oidc import Oidc
from bastion.config.recording import Recording
from bastion.config.remote import Remote, why_not_url
from bastion.config.section import Seconds, Section
from bastion.config.sections import Config
from bastion.config.ssh import MaxStartups, Network, Penalties, Ssh, host_and_port
from bastion.config.totp import Totp

__all__ = [
    "Access",
    "AccessRule",
    "Audit",
    "Auth",
    "Certificates",
    "Config",
    "Database",
    "Engine",
    "EngineTls",
    "LainOwners",
    "LainSso",
    "Ldap",
    "LocalUsers",
    "MaxStartups",
    "Network",
    "Oidc",
    "Penalties",
    "Recording",
    "Remote",
    "Seconds",
    "Section",
    "Ssh",
    "Syslog",
    "Totp",
    "host_and_port",
    "load_config",
    "why_not_url",
]

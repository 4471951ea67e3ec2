"""An OpenLDAP server of the tests' own: ldap:// (with StartTLS) and ldaps:// on free ports, signed by a test CA."""

import contextlib
import datetime
import ipaddress
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ldap3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.process import accepts, free_port, running, wait_until

BASE = "dc=example,dc=org"
PEOPLE = f"ou=people,{BASE}"
GROUPS = f"ou=groups,{BASE}"
ADMIN_DN = f"cn=admin,{BASE}"
READER_DN = f"cn=reader,{BASE}"
PASSWORD = "correct horse"  # of all users, the admin and the reader

TLS = """
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
"""
# bind_anon_*: a bind with an empty password succeeds, as in many a directory
CONFIGURATION = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
# openssh-lpk
attributetype ( 1.3.6.1.4.1.24552.500.1.1.1.13 NAME 'sshPublicKey' DESC 'OpenSSH public key' EQUALITY octetStringMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
objectclass ( 1.3.6.1.4.1.24552.500.1.1.2.0 NAME 'ldapPublicKey' SUP top AUXILIARY MAY ( sshPublicKey $ uid ) )
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {folder}/slapd.pid
allow bind_anon_cred bind_anon_dn
{more}
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="{groups}" by dn.exact="{reader}" read
access to * by dn.exact="{reader}" read by self read
database mdb
directory {folder}/db
suffix "{base}"
rootdn "{admin}"
rootpw "{password}"
maxsize 104857600
dbnosync
overlay memberof
memberof-group-oc groupOfNames
"""


@dataclass
class Slapd:
    """A running slapd; anonymous may bind, the reader may read, users see their own entry only."""

    port: int
    tls_port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def add(self, dn: str, classes: list[str], **attributes: str | list[str]) -> str:
        with self._connected() as connection:
            assert connection.add(dn, classes, attributes), connection.result
        return dn

    def add_user(self, uid: str, *, rdn: str | None = None, password: str = PASSWORD, **more: str | list[str]) -> str:
        """Returns the DN. `rdn` where `uid` would need escapes, such as "cn=o\\\\, neil"."""
        return self.add(
            f"{rdn or f'uid={uid}'},{PEOPLE}",
            ["inetOrgPerson", "ldapPublicKey"],
            **{"uid": uid, "cn": "somebody", "sn": "somebody", "userPassword": password, **more},
        )

    def add_group(self, name: str, *members: str, rdn: str | None = None, below: str = GROUPS) -> str:
        """A groupOfNames of these DNs; returns its DN."""
        return self.add(f"{rdn or f'cn={name}'},{below}", ["groupOfNames"], cn=name, member=list(members))

    def add_member(self, group_dn: str, member: str) -> None:
        with self._connected() as connection:
            assert connection.modify(group_dn, {"member": [(ldap3.MODIFY_ADD, [member])]}), connection.result

    def remove_member(self, group_dn: str, member: str) -> None:
        with self._connected() as connection:
            assert connection.modify(group_dn, {"member": [(ldap3.MODIFY_DELETE, [member])]}), connection.result

    @contextlib.contextmanager
    def _connected(self) -> Iterator[ldap3.Connection]:
        connection = ldap3.Connection(
            ldap3.Server("127.0.0.1", self.port, get_info=ldap3.NONE), ADMIN_DN, PASSWORD, check_names=False
        )
        try:
            assert connection.bind(), connection.result
            yield connection
        finally:
            connection.unbind()


def make_certificates(folder: Path) -> None:
    """`ca.pem`, and `server.pem` and .key for 127.0.0.1, signed by it."""
    now = datetime.datetime.now(datetime.UTC)
    days = datetime.timedelta(days=1)

    def certificate(subject: str, key: ec.EllipticCurvePrivateKey, issuer: str) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - days)
            .not_valid_after(now + days)
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = certificate("test CA", ca_key, "test CA").add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = certificate("127.0.0.1", key, "test CA").add_extension(names, False)
    for name, made in (("ca", ca), ("server", server)):
        signed = made.sign(ca_key, hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "server.key").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))


@contextlib.contextmanager
def slapd(folder: Path, *, tls: bool = True, more: str = "") -> Iterator[Slapd]:
    """A directory with ou=people, ou=groups and the reader; `more` are lines for slapd.conf."""
    make_certificates(folder)
    more += TLS.format(folder=folder) if tls else ""
    (folder / "db").mkdir()
    (folder / "slapd.conf").write_text(
        CONFIGURATION.format(
            folder=folder, base=BASE, admin=ADMIN_DN, reader=READER_DN, groups=GROUPS, password=PASSWORD, more=more
        )
    )
    # a copy: Ubuntu's AppArmor lets /usr/sbin/slapd read its own folders only
    program = shutil.copy("/usr/sbin/slapd", folder / "slapd")
    port, tls_port = free_port(), free_port()
    command = ["prlimit", "--nofile=1024", str(program), "-d", "0", "-f", f"{folder}/slapd.conf"]  # a slot per file
    command += ["-h", f"ldap://127.0.0.1:{port}" + (f" ldaps://127.0.0.1:{tls_port}" if tls else "")]
    with running(command, folder / "slapd.log") as process:
        wait_until(
            lambda: (accepts(port) and (not tls or accepts(tls_port))) or process.poll() is not None, "slapd answers"
        )
        assert process.poll() is None, (folder / "slapd.log").read_text()
        server = Slapd(port, tls_port, folder, process)
        server.add(BASE, ["dcObject", "organization"], dc="example", o="example")
        server.add(PEOPLE, ["organizationalUnit"], ou="people")
        server.add(GROUPS, ["organizationalUnit"], ou="groups")
        server.add(READER_DN, ["organizationalRole", "simpleSecurityObject"], cn="reader", userPassword=PASSWORD)
        yield server

"""The bastion's image, as its Dockerfile makes it; with Debian's and Python's packages from the network, once."""

import hashlib
import io
import os
import ssl
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.servers.cache import made_once
from tests.servers.engine import DEBIAN, Engine

ROOT = Path(__file__).parents[2]
BASE = "bastion-test/base:1"
PACKAGES = "bastion-test/packages:1"  # and in /opt/bastion a virtual environment with what the bastion needs
IMAGE = "bastion-test/bastion:1"
SYSTEMD = "bastion-test/systemd:1"  # the same with a systemd to boot

_SYSTEMD = f"""\
FROM {PACKAGES}
RUN apt-get update && apt-get install --yes --no-install-recommends systemd systemd-sysv logrotate
"""


def _base_image(engine: Engine) -> None:
    """Debian, with what this machine trusts and where it gets packages from: a proxy may stand before the network."""
    files: dict[str, bytes] = {"Dockerfile": f"FROM {DEBIAN}\nCOPY etc /etc/\n".encode()}
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
    lines = [line.partition("=") for line in listed.stdout.splitlines() if line.startswith(("global.", ":env:."))]
    pip = {name.split(".", 1)[1]: value.strip("'") for name, _, value in lines}
    if bundle := ssl.get_default_verify_paths().cafile:
        files["etc/pip-ca.crt"] = Path(bundle).read_bytes()
        pip["cert"] = "/etc/pip-ca.crt"
    files["etc/pip.conf"] = "\n".join(["[global]", *(f"{name} = {value}" for name, value in pip.items())]).encode()
    for path in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
        files[f"etc/apt/apt.conf.d/{path.name}"] = path.read_bytes()
    build_of(engine, BASE, files)


def build_of(engine: Engine, tag: str, files: dict[str, bytes]) -> None:
    """Build `files`, the Dockerfile among them."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    engine.client.images.build(
        fileobj=context, custom_context=True, tag=tag, rm=True, network_mode="host", buildargs=_proxies()
    )


def _proxies() -> dict[str, str]:
    return {name: os.environ[name] for name in ("http_proxy", "https_proxy", "no_proxy") if name in os.environ}


def _docker_cli(engine: Engine, *arguments: str) -> None:
    subprocess.run(["docker", "-H", engine.url, *arguments], check=True, stdout=subprocess.DEVNULL)


def _build(engine: Engine, tag: str, target: str | None = None) -> None:
    engine.client.images.build(
        path=str(ROOT),
        tag=tag,
        target=target,
        rm=True,
        network_mode="host",
        buildargs={"BASE": BASE} | _proxies(),
        cache_from=[PACKAGES],
    )


def load_packages(engine: Engine) -> None:
    """The images PACKAGES and SYSTEMD: made once a machine, and cached."""

    def make(tar: Path) -> None:
        _base_image(engine)
        _build(engine, PACKAGES, "packages")
        build_of(engine, SYSTEMD, {"Dockerfile": _SYSTEMD.encode()})
        _docker_cli(engine, "save", "-o", str(tar), BASE, PACKAGES, SYSTEMD)

    made_of = b"".join((ROOT / name).read_bytes() for name in ("Dockerfile", "pyproject.toml")) + _SYSTEMD.encode()
    tar = made_once(f"image-{hashlib.sha256(made_of).hexdigest()[:12]}.tar", make)
    _docker_cli(engine, "load", "-i", str(tar))


def bastion_image(engine: Engine) -> str:
    """IMAGE, of the source as it is."""
    load_packages(engine)
    _build(engine, IMAGE)
    return IMAGE

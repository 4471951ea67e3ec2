"""Finds a Docker engine that answers, or has Debian's installed and starts one."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import docker
from docker.errors import DockerException
from docker.tls import TLSConfig

from bastion.config import Engine, EngineTls
from demo.dockerd import PATH, Dockerd
from demo.terminal import Problem, say, step

DOCKER = Path("/var/run/docker.sock")
PODMAN = Path("/run/podman/podman.sock")
INSTALL = Path(__file__).with_name("install.sh")


def connect(engine: Engine) -> docker.DockerClient:
    """A client of the engine that the configuration names so. Raises `Problem` (why it does not answer)."""
    tls: TLSConfig | bool = False
    scheme, _, path = engine.url.partition("://")
    try:
        if scheme == "unix":  # docker-py's words would hide why
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(path)
        if engine.tls:
            pair = (str(engine.tls.cert), str(engine.tls.key))
            tls = TLSConfig(client_cert=pair, ca_cert=str(engine.tls.ca), verify=True)
        return docker.DockerClient(base_url=engine.url, tls=tls, timeout=60)
    except PermissionError as error:
        raise Problem("you may not use it") from error
    except OSError as error:  # requests' own errors among them
        raise Problem(error.strerror or str(error)) from error
    except DockerException as error:
        raise Problem(str(error)) from error


def find(environ: Mapping[str, str]) -> tuple[Engine | None, list[str]]:
    """The first engine that answers, and a line about each that does not. Raises `Problem` for a wrong DOCKER_HOST."""
    if url := environ.get("DOCKER_HOST"):
        engine = _from_environment(url, environ)
        try:
            connect(engine).close()
        except Problem as problem:
            raise Problem(
                f"The Docker engine of DOCKER_HOST={url} does not answer: {problem}. Start it, or unset DOCKER_HOST."
            ) from problem
        return engine, []
    silent = []
    for path in _sockets(environ):
        if not path.exists():
            silent.append(f"{path}: not there")
            continue
        engine = Engine(name="demo", url=f"unix://{path}")
        try:
            connect(engine).close()
            return engine, silent
        except Problem as problem:
            silent.append(f"{path}: {problem}")
    return None, silent


def start(own: Dockerd, silent: list[str]) -> Engine:
    """Start the demo's own engine; install it first where that is needed. Raises `Problem` where it may not."""
    if os.geteuid() != 0 and not _sudo_without_password():
        raise Problem(
            "No Docker engine answers:\n"
            + "".join(f"  {line}\n" for line in silent)
            + "Start one, or let this user use it (sudo usermod -aG docker $USER; log in again), or set DOCKER_HOST,\n"
            "or install one (sudo apt-get install docker.io, or podman and systemctl --user start podman.socket),\n"
            "or let the demo do that: sudo make demo"
        )
    if shutil.which("dockerd", path=PATH) is None:
        install("docker.io")
    with step("Starting a Docker engine of the demo's own, without network"):
        _as_root(own, "start")
    return Engine(name="demo", url=own.url)


def stop(own: Dockerd) -> None:
    """Stop the demo's own engine, if it was started. Raises `Problem` if it stays."""
    if own.exists():
        _as_root(own, "stop")


def install(*packages: str) -> None:
    """Install Debian packages. Raises `Problem` where that is not possible; the installer has said why."""
    say(f"Installing {' '.join(packages)} (a minute or two)")
    with subprocess.Popen([INSTALL, *packages], stdin=subprocess.DEVNULL) as installer:
        try:
            status = installer.wait()
        except BaseException:  # let dpkg finish what it is at: half an installation is worse than a late end
            installer.terminate()
            installer.wait()
            raise
    if status:
        raise Problem(f"{' '.join(packages)} could not be installed; see above.")


def _sockets(environ: Mapping[str, str]) -> list[Path]:
    """Docker's, rootless Docker's, Podman's for a user, Podman's for root."""
    of_user = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    return [DOCKER, of_user / "docker.sock", of_user / "podman/podman.sock", PODMAN]


def _from_environment(url: str, environ: Mapping[str, str]) -> Engine:
    """As the docker command reads DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH."""
    if not url.startswith(("unix://", "tcp://")):
        raise Problem(
            f"DOCKER_HOST={url}: the bastion speaks to unix:// and tcp:// only. Set one of these, or unset it."
        )
    tls = None
    if environ.get("DOCKER_TLS_VERIFY"):
        folder = Path(environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker").absolute()
        tls = EngineTls(ca=folder / "ca.pem", cert=folder / "cert.pem", key=folder / "key.pem")
    return Engine(name="demo", url=url, tls=tls)


def _sudo_without_password() -> bool:
    return (
        shutil.which("sudo") is not None
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    )


def _as_root(own: Dockerd, command: str) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    module = [sys.executable, "-B", "-m", "demo.dockerd", command, str(own.run), str(os.getegid())]
    done = subprocess.run([*sudo, *module], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem(done.stderr.strip())

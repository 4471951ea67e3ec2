"""paramiko as a command: PORT LOGIN [WORDS]; CLIENT_KEY or CLIENT_PASSWORD, CLIENT_TERMINAL."""

import os
import signal
import sys
import threading
import tty
from collections.abc import Callable

import paramiko


def send_input(channel: paramiko.Channel) -> None:
    while data := os.read(0, 65536):
        channel.sendall(data)
    channel.shutdown_write()


def show(receive: Callable[[int], bytes], descriptor: int) -> None:
    while data := receive(65536):
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]


def main(port: str, login: str, words: str | None = None) -> int:
    terminal = bool(os.environ["CLIENT_TERMINAL"])
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        "127.0.0.1",
        int(port),
        login,
        password=os.environ.get("CLIENT_PASSWORD"),
        key_filename=os.environ.get("CLIENT_KEY"),
        allow_agent=False,
        look_for_keys=False,
    )
    transport = client.get_transport()
    assert transport is not None
    channel = transport.open_session()
    if terminal:
        channel.get_pty(os.environ["TERM"], *os.get_terminal_size())
        tty.setraw(0)
        signal.signal(signal.SIGWINCH, lambda *_: channel.resize_pty(*os.get_terminal_size()))
    if words is None:
        channel.invoke_shell()
    else:
        channel.exec_command(words)
    threading.Thread(target=send_input, args=(channel,), daemon=True).start()
    errors = threading.Thread(target=show, args=(channel.recv_stderr, 2))
    output = threading.Thread(target=show, args=(channel.recv, 1))
    for thread in (errors, output):
        thread.start()
    for thread in (errors, output):
        thread.join()
    status = channel.recv_exit_status()
    client.close()
    return 255 if status < 0 else status


os._exit(main(*sys.argv[1:]))  # a thread may still wait for input

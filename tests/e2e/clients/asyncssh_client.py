"""asyncssh's client as a command: PORT LOGIN [WORDS]; CLIENT_KEY or CLIENT_PASSWORD, CLIENT_TERMINAL."""

import asyncio
import os
import signal
import sys
import tty

import asyncssh


async def main(port: str, login: str, words: str | None = None) -> int:
    terminal = bool(os.environ["CLIENT_TERMINAL"])
    key, password = os.environ.get("CLIENT_KEY"), os.environ.get("CLIENT_PASSWORD")
    async with asyncssh.connect(
        "127.0.0.1", int(port), username=login, known_hosts=None, client_keys=[key] if key else None, password=password
    ) as connection:
        process = await connection.create_process(
            words,
            term_type=os.environ["TERM"] if terminal else None,
            term_size=os.get_terminal_size() if terminal else (0, 0),
            stdin=sys.stdin.buffer,
            stdout=sys.stdout.buffer,
            stderr=sys.stderr.buffer,
            encoding=None,
        )
        if terminal:
            tty.setraw(0)
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGWINCH, lambda: process.change_terminal_size(*os.get_terminal_size())
            )
        done = await process.wait()
        return 255 if done.exit_status is None else done.exit_status


sys.exit(asyncio.run(main(*sys.argv[1:])))

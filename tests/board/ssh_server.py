"""An ssh server on this machine in the place of a board: asyncssh in a thread, commands by the shell in a folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import sysconfig
import threading
from pathlib import Path

import asyncssh

import fine_edge

_LEFT_OUT = ("torch", "transformers", "fine_edge", "tensorrt_rtx", "tensorrt")


def packages_of_a_board(folder: Path) -> Path:
    """The installed packages without those that a board does not have, as links."""
    folder.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith(_LEFT_OUT) and entry.suffix != ".pth" and "fine_edge" not in entry.name:
            (folder / entry.name).symlink_to(entry)
    return folder


async def _copy(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    with contextlib.suppress(asyncssh.Error, OSError):
        while block := await source.read(1 << 15):
            target.write(block)
            await target.drain()


class SshServer:
    """Takes one user's key, runs commands in ``home``, and can cut connections.

    Attributes:
        home: home folder on the board.
        python: Python there, which finds fine_edge and what it imports, and no torch.
        before: shell words in front of every command.
        cut_after: bytes of input after which the connection is cut; ``None``: never.
        received: bytes of input so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.before, self.cut_after, self.received = "", None, 0
        self.packages = packages_of_a_board(folder / "packages")
        self.python = Path(sys._base_executable)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._key, self._user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        self.other = asyncssh.generate_private_key("ssh-ed25519")
        for name, key in (("user", self._user), ("other", self.other)):
            key.write_private_key(folder / name)
            (folder / name).chmod(0o600)
        (folder / "authorized").write_bytes(self._user.export_public_key())

    def __enter__(self) -> SshServer:
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        return self

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self._key],
            authorized_client_keys=str(self.folder / "authorized"),
            process_factory=self._serve,
            encoding=None,
        )

    def __exit__(self, *_: object) -> None:
        async def close() -> None:
            self._listener.close()
            await self._listener.wait_closed()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def ssh(self, *, known: str = "own", identity: str = "user") -> str:
        """``--ssh`` for a client that knows the server's key, another one, or none."""
        keys = {"own": self._key, "other": self.other}
        hosts, config = self.folder / f"known_{known}", self.folder / f"config_{known}_{identity}"
        line = (
            f"[127.0.0.1]:{self._listener.get_port()} {keys[known].export_public_key().decode()}"
            if known in keys
            else ""
        )
        hosts.write_text(line, encoding="utf-8")
        config.write_text(
            f"Host board\n  HostName 127.0.0.1\n  Port {self._listener.get_port()}\n  User me\n  IdentitiesOnly yes\n"
            f"  IdentityFile {self.folder / identity}\n  UserKnownHostsFile {hosts}\n"
            "  GlobalKnownHostsFile /dev/null\n",
            encoding="utf-8",
        )
        return f"ssh -F '{config}'"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of commands on the board; pip finds nothing but what is there."""
        code = Path(fine_edge.__file__).parent.parent
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{code}:{self.packages}",
            "PIP_NO_INDEX": "1",
            "OMP_NUM_THREADS": "1",
        }

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        pipe = asyncio.subprocess.PIPE
        self.home.mkdir(parents=True, exist_ok=True)
        command = f"{self.before}{process.command}"
        how = {"cwd": self.home, "env": self.environment, "start_new_session": True}
        child = await asyncio.create_subprocess_shell(command, stdin=pipe, stdout=pipe, stderr=pipe, **how)
        copying = asyncio.ensure_future(self._copy_input(process, child))
        await asyncio.gather(_copy(child.stdout, process.stdout), _copy(child.stderr, process.stderr))
        code = await child.wait()
        copying.cancel()
        with contextlib.suppress(asyncssh.Error, OSError):
            process.exit(code if code >= 0 else 128 - code)

    async def _copy_input(self, process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(asyncssh.Error, OSError):
            while block := await process.stdin.read(1 << 15):
                self.received += len(block)
                child.stdin.write(block)
                await child.stdin.drain()
                if self.cut_after is not None and self.received > self.cut_after:
                    process.channel.get_connection().abort()
                    break
        child.stdin.close()

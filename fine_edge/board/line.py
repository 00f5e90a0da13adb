"""The ssh connection to a board, and the requests that are made over it."""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fine_edge.board import agent, agent_files
from fine_edge.errors import BoardError, ConfigError
from fine_edge.text import printable

# Exit code of ssh itself.
_BROKEN = 255
# Exit codes of a shell that cannot run a command.
_NOT_FOUND = (126, 127)
# Bytes of a line: one that never ends, of some other program, must not fill the memory.
_LONGEST_REPLY = 64 * 2**20
# Lines that a login shell may print before a reply.
_MOST_NOISE = 1000
# How long ssh may take to end, and to say how the command ended, once its connection is done with.
_END_S = 20
GO_ON = "give the same command again: it goes on where it stopped"

# What ssh prints, in part, such as "ssh: connect to host orin.local port 22: Connection refused", and what to do.
_HINTS = {
    "Host key verification failed": "the key is not the one that was known: compare it with the board's own, then"
    " connect once by hand (ssh HOST)",
    "Permission denied": "ssh-copy-id HOST puts your key there; ssh HOST must work",
    "Could not resolve hostname": "name the board as in `ssh HOST`, or by its address",
    "Connection refused": "is the board's ssh server running, and this its port?",
    "timed out": "is the board on, and in this network?",
}


def read_host(text: str) -> str:
    """Return what ``ssh`` may be given as its destination: ``board``, ``user@board`` or ``ssh://user@board:port``.

    Raises:
        ConfigError: for what ssh would take for an option, or what is no name.
    """
    # "-oProxyCommand=..." in the place of a host would run a program on this machine.
    if not text or text.startswith("-") or printable(text) != text or any(mark.isspace() for mark in text):
        raise ConfigError(f"{text!r} is no host", where="HOST", hint="name it as ssh does: user@board")
    return text


def read_ssh(text: str) -> tuple[str, ...]:
    """Return the words of ``--ssh``, the ssh program with options of its own.

    Raises:
        ConfigError: when it is no command that is here.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(f"{text!r} is no command ({error})", where="--ssh") from error
    if not words or not shutil.which(words[0]):
        hint = "install OpenSSH's client, or say how it is called: --ssh 'ssh -p 2222'"
        raise ConfigError(f"there is no {text!r} here", where="--ssh", hint=hint)
    return words


@dataclass(frozen=True)
class Conversation:
    """A request that is being served: what is written to it, and its replies."""

    host: str
    what: str
    python: str
    ssh: subprocess.Popen[bytes]

    @property
    def _to(self) -> IO[bytes]:
        assert self.ssh.stdin is not None
        return self.ssh.stdin

    @property
    def _replies(self) -> IO[bytes]:
        assert self.ssh.stdout is not None
        return self.ssh.stdout

    def reply(self) -> dict[str, Any]:
        """Return the next reply.

        Raises:
            BoardError: when the board refuses, or the connection broke.
        """
        for _ in range(_MOST_NOISE):
            # A shell that greets, or whose profile prints something, does so in front of the first reply.
            line = self._replies.readline(_LONGEST_REPLY)
            if not line:
                raise self.broken()
            if line.startswith(agent_files.MARK):
                break
        try:
            found = json.loads(line.removeprefix(agent_files.MARK))
        except ValueError:
            raise self.broken() from None
        if not isinstance(found, dict):
            raise BoardError("answers what is no answer", where=self.host, hint="is another program called python3?")
        if "error" in found:
            raise BoardError(str(found["error"]), where=self.host, hint=str(found.get("hint", "")))
        return found

    def write(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            BoardError: what the board said before it stopped reading, else that the connection broke.
        """
        try:
            self._to.write(data)
            self._to.flush()
        # The board has stopped reading. Where it refused first, its reason waits among the replies and tells more.
        except OSError:
            self.reply()
            raise self.broken() from None

    def read(self, most: int) -> bytes:
        """Return the next bytes of a result, at most ``most``.

        Raises:
            BoardError: when there are none.
        """
        data = self._replies.read(most)
        if not data:
            raise self.broken()
        return data

    def broken(self) -> BoardError:
        """Return the error of a request that ended in the middle of this."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            # ssh ends with the exit code of the board's shell, which says whether there is such a Python.
            if self.ssh.wait(_END_S) in _NOT_FOUND:
                hint = "install Python 3.10 or newer there, or name it with --python"
                return BoardError(f"cannot run {self.python}", where=self.host, hint=hint)
        return BoardError(f"the connection broke while {self.what}", where=self.host, hint=GO_ON)


def _start_of_agent() -> str:
    """Return the Python program that makes the agent's modules and serves one request.

    It has only letters that no shell acts on inside single quotes, whichever shell the board's user has.
    """
    # In the order of their imports: agent takes names from agent_files.
    files = {module.__name__: Path(str(module.__file__)) for module in (agent_files, agent)}
    modules = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    # Linux takes 128 KiB as one argument of a program (MAX_ARG_STRLEN); compressed, the agent is a tenth of that.
    packed = base64.b64encode(zlib.compress(json.dumps(modules).encode(), 9)).decode()
    return (
        "import base64,json,sys,types,zlib;"
        f'p=json.loads(zlib.decompress(base64.b64decode("{packed}")));'
        # An import looks into sys.modules for the full name before it looks for parent packages, which the board lacks.
        "[exec(s,sys.modules.setdefault(n,types.ModuleType(n)).__dict__) for n,s in p.items()];"
        f'sys.exit(sys.modules["{agent.__name__}"].main(sys.argv[1]))'
    )


class Line:
    """One ssh connection, which every request uses; it is closed at the end of the block.

    Args:
        host: as :func:`read_host` returns it.
        ssh: the ssh program and its options.
        python: the Python on the board that requests run in, a name or a path there.
    """

    def __init__(self, host: str, ssh: Sequence[str] = ("ssh",), python: str = "python3") -> None:
        self.host, self.python = host, python
        self._ssh = ssh
        self._folder: Path | None = None
        self._start = _start_of_agent()

    def __enter__(self) -> Line:
        # A socket's path may have 100 characters, which the folder for temporary files can take alone.
        short = Path("/tmp")
        self._folder = Path(tempfile.mkdtemp(prefix="fe-", dir=short if short.is_dir() else None))
        try:
            self._connect(self._folder / "ssh.log")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._folder is not None
        # Without the socket the connection was never made, or has ended: there is nothing to end.
        if (self._folder / "s").exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                ended = [*self._options(), "-O", "exit", "--", self.host]
                subprocess.run(ended, stdin=subprocess.DEVNULL, capture_output=True, timeout=_END_S, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _options(self) -> list[str]:
        return [*self._ssh, "-o", f"ControlPath={self._folder}/s", "-o", "ForwardX11=no"]

    def _connect(self, log: Path) -> None:
        """Start the connection in the background; ssh asks for passwords and unknown keys itself, on a terminal."""
        # ssh gives up after three questions without an answer (ServerAliveCountMax): a board that is switched off shows
        # within a minute. ControlPersist of a person's own configuration would outlive this command.
        options = {"ControlMaster": "yes", "ControlPersist": "no", "ConnectTimeout": "20", "ServerAliveInterval": "15"}
        # Nobody could type a password: ssh fails in place of waiting for one.
        if not sys.stdin.isatty():
            options["BatchMode"] = "yes"
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        with log.open("wb") as errors:  # a pipe would stay open as long as the connection does
            # -f puts ssh into the background once it is authenticated, so that its exit code says whether it is.
            code = subprocess.run(
                [*self._options(), *words, "-f", "-N", "--", self.host],
                stdin=None if sys.stdin.isatty() else subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                check=False,
            ).returncode
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"ssh ended with {code}"]
            # The line that has a hint, else the last one: ssh prints warnings and banners before its error.
            known = ((line, hint) for line in lines for said, hint in _HINTS.items() if said in line)
            said, hint = next(known, (lines[-1], "ssh HOST must work"))
            raise BoardError(said.strip(), where=self.host, hint=hint.replace("HOST", self.host))

    def _words(self, request: dict[str, Any], *, terminal: bool = False) -> list[str]:
        encoded = base64.b64encode(json.dumps(request).encode()).decode()
        # A shell puts the home folder in the place of ~ only where it is not quoted.
        home, python = ("~/", self.python[2:]) if self.python.startswith("~/") else ("", self.python)
        command = f"{home}{shlex.quote(python)} -c {shlex.quote(self._start)} {encoded}"
        # When the connection is gone, ssh must fail: it would make another one, and ask for a password again.
        alone = ["-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "BatchMode=yes"]
        # -q leaves out "Shared connection to HOST closed.", which would stand below each result.
        quiet = ["-q", *alone, "-t" if terminal else "-T"]
        return [*self._options(), *quiet, "--", self.host, command]

    @contextlib.contextmanager
    def asked(self, what: str, do: str, **request: Any) -> Iterator[Conversation]:
        """Make a request, and talk with what serves it.

        Args:
            what: is going on, for errors: "copying files".
            do: function of :mod:`fine_edge.board.agent`.
            request: its arguments.
        """
        words = self._words({"do": do, **request})
        # In a session of its own: Ctrl-C ends the request in order, by the end of its standard input.
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as ssh:
            assert ssh.stdin is not None
            try:
                yield Conversation(self.host, what, self.python, ssh)
            finally:
                with contextlib.suppress(OSError):
                    ssh.stdin.close()
                try:
                    ssh.wait(_END_S)
                except subprocess.TimeoutExpired:
                    ssh.kill()

    def ask(self, what: str, do: str, **request: Any) -> dict[str, Any]:
        """Make a request that has one reply, and return it."""
        with self.asked(what, do, **request) as conversation:
            return conversation.reply()

    def run(self, **request: Any) -> int:
        """Run a command with its output shown here; return its exit code. Ctrl-C ends it there.

        Raises:
            BoardError: when the connection breaks; the command there ends with it.
        """
        terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
        words = self._words({"do": "run", "terminal": terminal, **request}, terminal=terminal)
        sys.stdout.flush()
        # On a terminal ssh passes every key on, Ctrl-C too.
        code = subprocess.run(words, check=False).returncode if terminal else self._run_piped(words)
        if code == _BROKEN:
            what = "the connection broke while the command ran"
            raise BoardError(what, where=self.host, hint="give the same command again")
        return code

    def _run_piped(self, words: list[str]) -> int:
        with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True) as ssh:
            assert ssh.stdin is not None
            try:
                return ssh.wait()
            except BaseException:
                ssh.stdin.close()  # upon which the command there is interrupted
                with contextlib.suppress(subprocess.TimeoutExpired):
                    ssh.wait(_END_S)
                ssh.kill()
                raise

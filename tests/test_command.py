"""How a command ends, seen from outside: exit code, standard error, and nothing else."""

import os
import signal
import subprocess
import sys
import time

import pytest

RUN = "from fine_edge import command, errors\nimport sys, time\n{body}\ncommand.run(main)\n"


def end_of(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN.format(body=body)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_mains(code):
    done = end_of(f"def main(argv): return {code}")
    assert (done.returncode, done.stderr) == (code, "")


def test_bad_input_is_one_line_and_2():
    done = end_of("def main(argv): raise errors.ImageError('not\\nan image', where='x.png', hint='give another')")
    assert done.returncode == 2
    assert done.stderr == "error: x.png: not an image -> give another\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    "error", ["MemoryError", 'RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried 9 bytes.")']
)
def test_too_little_memory_is_one_line_and_2(error):
    done = end_of(f"def main(argv): raise {error}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: this machine has too little memory for the command"
        " -> close other programs, add swap, or use a smaller --batch or --input-size\n"
    )


def test_a_bug_keeps_its_traceback():
    done = end_of("def main(argv): raise ZeroDivisionError('ours')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_interrupt_is_130_without_a_traceback():
    done = end_of("def main(argv): raise KeyboardInterrupt")
    assert done.returncode == 130
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_lets_finally_blocks_clean_up(tmp_path, sent, code):
    body = (
        "def main(argv):\n"
        f"    try:\n        open({str(tmp_path / 'started')!r}, 'w').close(); time.sleep(60)\n"
        f"    finally:\n        open({str(tmp_path / 'cleaned')!r}, 'w').close()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", RUN.format(body=body)],
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores SIGINT, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (tmp_path / "started").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(sent)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == code
    assert "Traceback" not in stderr
    assert (tmp_path / "cleaned").exists()


SHOW = "from fine_edge import console\nfrom fine_edge.table import Column, Table\n"
TABLE = SHOW + (
    "def main(argv):\n    table = Table('·', [Column('name')])\n    [table.add('line') for _ in range(3000)]\n"
    "    table.print(console.out)\n    return 0"
)
JSON = SHOW + "def main(argv):\n    console.print_json(['line'] * 100000)\n    return 0"
HELP = "def main(argv):\n    import argparse; argparse.ArgumentParser().parse_args(['--help'])"
REFUSES = "def main(argv): raise errors.DataError('bad')"


def in_shell(line, body, **environment):
    """Run the shell's line with Python and a program as ``$RUN``."""
    return subprocess.run(
        ["bash", "-c", line.replace("$RUN", '"$0" -c "$1"'), sys.executable, RUN.format(body=body)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | environment,
    )


FULL = "error: standard output: cannot be written (No space left on device) -> free some space\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("body", "reader"), [(TABLE, "head -1"), (JSON, "head -1"), (JSON, "true")])
def test_a_reader_that_leaves_is_no_error(body, reader, unbuffered):
    done = in_shell(f"$RUN | {reader}; exit ${{PIPESTATUS[0]}}", body, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_reader_of_errors_that_leaves_is_no_error():
    done = in_shell("{ sleep 0.2; $RUN; } 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}", REFUSES)
    assert (done.returncode, done.stdout + done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("line", "body", "said"),
    [
        ("$RUN > /dev/full", TABLE, FULL),
        ("$RUN > /dev/full", JSON, FULL),
        ("$RUN > /dev/full", HELP, FULL),
        ("$RUN > /dev/full", REFUSES, "error: bad\n"),
        ("$RUN >&-", TABLE, "error: standard output: is closed -> redirect it to a file or to /dev/null\n"),
        ("$RUN >&- 2>&-", TABLE, ""),
        ("$RUN 2>&-", REFUSES, ""),
        ("$RUN 2> /dev/full", REFUSES, ""),
        ("$RUN > /dev/full 2>&1", TABLE, ""),
    ],
)
def test_an_output_that_takes_nothing_is_one_line_and_2(line, body, said):
    done = in_shell(line, body)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_what_a_library_prints_never_lands_in_a_file_of_ours(tmp_path):
    path = str(tmp_path / "model")
    body = f"def main(argv):\n    file = open({path!r}, 'w'); import os; os.write(2, b'log'); return file.fileno() > 2"
    assert in_shell("$RUN 2>&- <&-", body).returncode == 1
    assert (tmp_path / "model").read_text() == ""


def test_an_output_of_ascii_takes_any_name():
    body = SHOW + (
        "def main(argv):\n    table = Table('猫', [Column('·')])\n    table.add('grön')\n"
        "    table.print(console.out); console.warn('猫'); print('猫'); return 0"
    )
    done = in_shell("$RUN", body, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.count("\\u732b") == 2
    assert "gr\\xf6n" in done.stdout


@pytest.mark.parametrize(
    "body",
    [
        "console.remark(NAME); console.warn(NAME); console.out.print(NAME)",
        "import warnings; warnings.warn(NAME)",
        "print(NAME)\n    import argparse; argparse.ArgumentParser().parse_args(['--' + NAME])",
        "raise errors.DataError(NAME, where=NAME, hint=NAME)",
        "raise ZeroDivisionError(NAME)",
    ],
)
def test_no_escape_of_a_name_reaches_the_terminal(body):
    done = end_of(SHOW + "NAME = 'a\\x1b[31m\\x07\\u202eb'\ndef main(argv):\n    " + body + "\n    return 0")
    assert "a\\x1b[31m" in done.stdout + done.stderr
    assert not set("\x1b\x07\u202e") & set(done.stdout + done.stderr)


def test_a_full_disk_is_one_line_wherever_it_strikes(tmp_path):
    body = (
        "def main(argv):\n    import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        f"    file = open({str(tmp_path / 'x')!r}, 'wb', buffering=0); file.write(bytes(10)); file.write(bytes(10))"
    )
    done = end_of(body)
    assert (done.returncode, done.stderr) == (
        2,
        "error: cannot be written (File too large) -> free some space\n",
    )


def test_a_second_signal_does_not_end_the_tidying_up(tmp_path):
    body = (
        "def main(argv):\n    import os, signal\n    try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
        "    finally:\n        os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGHUP)\n"
        f"        open({str(tmp_path / 'cleaned')!r}, 'w').close()"
    )
    assert end_of(body).returncode == 143
    assert (tmp_path / "cleaned").exists()

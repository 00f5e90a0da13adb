"""How a command ends, seen from outside: exit code, standard error, and nothing else."""

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
    done = end_of("def main(argv): raise errors.ImageError('not\\nan image', where='x.png', mend='give another')")
    assert done.returncode == 2
    assert done.stderr == "error: x.png: not an image -> give another\n"
    assert done.stdout == ""


def test_a_bug_keeps_its_traceback():
    done = end_of("def main(argv): raise ZeroDivisionError('ours')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_interrupt_is_130_without_a_traceback():
    done = end_of("def main(argv): raise KeyboardInterrupt")
    assert done.returncode == 130
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
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


def test_a_reader_that_leaves_is_no_error():
    code = RUN.format(body="def main(argv):\n    for _ in range(100000): print('line')\n    return 0")
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -1; exit ${PIPESTATUS[0]}', sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, "line\n", "")

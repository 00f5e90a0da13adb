"""Commands of this program on a board that is reached by ssh: files go there, results come back.

One ssh connection carries every request (:mod:`fine_edge.board.line`). A request runs :mod:`fine_edge.board.agent` on
the board: Python of the standard library alone, sent in the request itself, so that the board needs ``python3``
and an ssh server and neither rsync nor anything of ours. On the board everything lies in one folder,
``~/.cache/fine_edge``:

    code-HASH    this very fine_edge, as source
    env-HASH     a virtual environment with what it imports; whole when ``fine_edge.json`` is in it, else made anew
    work         the counterpart of the folder that the command is typed in: relative paths are the same there and here
    elsewhere    the counterparts of absolute paths
    parts        files that have not arrived whole; a later request goes on with them
    results-*    results of commands that have ended and were not brought back yet

Files are known by sha256: what is there is not sent again, and a file gets its name when it is whole. Exports are made
here, where torch is; engines stay on the board, for which they are built.
"""

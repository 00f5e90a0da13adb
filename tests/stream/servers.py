"""Cameras on this machine: pictures over HTTP as web cameras send them, and over RTSP as network cameras do."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
CLOCK_HZ = 90_000
_JPEG_PAYLOAD = 26


def picture(number: int) -> np.ndarray:
    """Return a grey picture whose brightness says its number, modulo 8."""
    return np.full((HEIGHT, WIDTH, 3), 16 + 30 * (number % 8), np.uint8)


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(number)).save(buffer, format="JPEG", quality=90, subsampling="4:2:0")
    return buffer.getvalue()


class HttpCamera:
    """Sends pictures one behind the other; ``lengths`` says after how many each connection breaks."""

    def __init__(self, lengths: list[int], pause_s: float = 0.01) -> None:
        waiting = list(lengths)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not waiting:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
                self.end_headers()
                for number in range(waiting.pop(0)):
                    data = jpeg(number)
                    head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    try:
                        self.wfile.write(head.encode() + data + b"\r\n")
                    except OSError:
                        return
                    time.sleep(pause_s)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://someone:secret@127.0.0.1:{self._server.server_address[1]}/video.mjpg"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _rtp_packet(number: int, data: bytes) -> bytes:
    """Return a picture as one RTP packet (RFC 3550, RFC 2435: type 1, tables inside)."""
    tables, at = b"", 2
    while data[at + 1] != 0xDA:  # the scan, behind the headers
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        if data[at + 1] == 0xDB:
            body = data[at + 4 : at + 2 + length]
            tables += b"".join(body[start + 1 : start + 65] for start in range(0, len(body), 65))
        at += 2 + length
    scan = data[at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0] : -2]
    rtp = struct.pack(">BBHII", 0x80, 0x80 | _JPEG_PAYLOAD, number & 0xFFFF, number * CLOCK_HZ // 25, 1)
    head = struct.pack(">IBBBB", 0, 1, 255, WIDTH // 8, HEIGHT // 8) + struct.pack(">BBH", 0, 0, len(tables))
    return rtp + head + tables + scan


class RtspCamera:
    """Answers one client, and sends its pictures inside the same connection."""

    def __init__(self, pictures: int) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._pictures = pictures
        self.url = f"rtsp://127.0.0.1:{self._socket.getsockname()[1]}/camera"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:
            return
        with client, client.makefile("rb") as lines:
            try:
                while self._answer(client, lines):
                    pass
                for number in range(self._pictures):
                    packet = _rtp_packet(number, jpeg(number))
                    client.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                    time.sleep(0.01)
            except OSError:
                return

    def _answer(self, client: socket.socket, lines: io.BufferedReader) -> bool:
        """Answer a request; return ``False`` once the client wants pictures."""
        method = lines.readline().split(b" ")[0].decode()
        fields = {}
        while line := lines.readline().strip():
            name, _, value = line.decode().partition(": ")
            fields[name.lower()] = value
        more, body = "", ""
        if method == "DESCRIBE":
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
            body += f"m=video 0 RTP/AVP {_JPEG_PAYLOAD}\r\nc=IN IP4 0.0.0.0\r\na=control:track1\r\n"
            more = "Content-Type: application/sdp\r\n"
        elif method == "SETUP":
            more = f"Transport: {fields['transport']}\r\n"
        elif method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        answer = f"RTSP/1.0 200 OK\r\nCSeq: {fields['cseq']}\r\nSession: 1\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        client.sendall((answer + body).encode())
        return method != "PLAY"

    def close(self) -> None:
        self._socket.close()

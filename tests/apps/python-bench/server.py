"""The smallest web service that has everything a switch of releases can break (standard library only)."""

import base64
import hashlib
import json
import os
import re
import signal
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

VERSION = "v1"

draining = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "bench"
    disable_nagle_algorithm = True
    timeout = 75

    def do_GET(self):
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        route = getattr(self, "route_" + (url.path.strip("/") or "index"), None)
        if route is None or "/" in url.path.strip("/"):
            self.reply(404, {"error": "not found"})
        else:
            route(query)

    do_POST = do_PUT = do_GET

    def handle_one_request(self):
        self.server.idle(self.connection)
        super().handle_one_request()

    def parse_request(self):
        self.server.busy(self.connection)
        return super().parse_request()

    def reply(self, status, body):
        plain = isinstance(body, str)
        data = (body if plain else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if plain else "application/json")
        self.send_header("Content-Length", str(len(data)))
        if draining.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def route_index(self, query):
        self.reply(200, f"hello from {VERSION}\n")

    def route_health(self, query):
        self.reply(200, {"ok": True, "version": VERSION})

    def route_version(self, query):
        self.reply(200, VERSION + "\n")

    def route_slow(self, query):
        time.sleep(int(query.get("ms", 5000)) / 1000)
        self.reply(200, f"slow {VERSION}\n")

    def route_headers(self, query):
        self.reply(200, {k.lower(): v for k, v in self.headers.items()})

    def route_env(self, query):
        self.reply(200, sorted(os.environ))

    def route_once(self, query):
        """POST /once?id=ID appends ID to the file named by ONCE_FILE: a request that ran twice shows as two lines."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command != "POST" or not re.fullmatch(r"[\w.-]{1,100}", query.get("id", "")):
            self.reply(400, {"error": "POST with an id"})
            return
        if path := os.environ.get("ONCE_FILE"):
            with open(path, "ab", buffering=0) as file:
                file.write(f"{query['id']}\n".encode())
        self.reply(200, {"id": query["id"], "version": VERSION})

    def route_body(self, query):
        digest, size, left = hashlib.sha256(), 0, int(self.headers.get("Content-Length") or 0)
        while left and (chunk := self.rfile.read(min(left, 65536))):
            digest.update(chunk)
            size += len(chunk)
            left -= len(chunk)
        self.reply(200, {"size": size, "sha256": digest.hexdigest()})

    def route_sse(self, query):
        self.close_connection = True
        self.send_response(200)
        for name, value in {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no", "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(f"retry: 100\nevent: version\ndata: {VERSION}\n\n".encode())
            while not draining.wait(0.2):
                self.wfile.write(b"data: tick\n\n")
            self.wfile.write(b"event: restart\ndata: bye\n\n")
        except OSError:
            pass  # the reader went away

    def route_ws(self, query):
        """An echo over a WebSocket (RFC 6455), for messages of up to 64 KB."""
        key = self.headers.get("Sec-WebSocket-Key")
        self.close_connection = True
        if not key:
            self.reply(400, {"error": "not a WebSocket handshake"})
            return
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        self.send_response_only(101)
        for name, value in {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}.items():
            self.send_header(name, value)
        self.end_headers()
        done = threading.Event()
        threading.Thread(target=self.say_goodbye, args=(done,), daemon=True).start()
        try:
            self.echo()
        except (OSError, EOFError):
            pass
        finally:
            done.set()

    def say_goodbye(self, done):
        while not done.is_set():
            if draining.wait(0.1):
                try:
                    self.connection.sendall(b"\x88\x02" + struct.pack("!H", 1001))
                    done.wait(1)
                    self.connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                return

    def take(self, size):
        data = self.rfile.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def echo(self):
        while True:
            first, second = self.take(2)
            length = second & 127
            if length == 126:
                (length,) = struct.unpack("!H", self.take(2))
            elif length == 127 or not second & 128:
                return
            mask = self.take(4)
            payload = bytes(b ^ mask[i % 4] for i, b in enumerate(self.take(length)))
            opcode = first & 15
            if opcode == 8:
                if not draining.is_set():
                    self.wfile.write(bytes([0x88, len(payload[:2])]) + payload[:2])
                return
            if opcode in (1, 2, 9):
                head = bytes([0x80 | (10 if opcode == 9 else opcode)])
                size = bytes([length]) if length < 126 else b"\x7e" + struct.pack("!H", length)
                self.wfile.write(head + size + payload)

    def log_message(self, format, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address):
        super().__init__(address, Handler)
        self.lock = threading.Condition()
        self.waiting = set()  # connections that wait for their next request
        self.open = set()

    def idle(self, connection):
        with self.lock:
            self.waiting.add(connection)
        if draining.is_set():
            self.hang_up(connection)

    def busy(self, connection):
        with self.lock:
            self.waiting.discard(connection)

    def hang_up(self, connection):
        try:
            connection.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def process_request(self, request, client_address):
        with self.lock:
            self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        super().shutdown_request(request)
        with self.lock:
            self.open.discard(request)
            self.waiting.discard(request)
            self.lock.notify_all()

    def handle_error(self, request, client_address):
        pass  # a client that went away

    def drain(self):
        """Idle connections end now, the others after their answer."""
        with self.lock:
            for connection in self.waiting:
                self.hang_up(connection)
            self.lock.wait_for(lambda: not self.open)


def main():
    server = Server((os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000"))))

    def stop(signum, frame):
        draining.set()
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    print(f"listening {VERSION} on {server.server_address[1]}", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.socket.close()
    server.drain()


if __name__ == "__main__":
    main()

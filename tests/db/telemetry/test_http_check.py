"""The health check of images: 200 is 0, everything else is not."""

import http.server
import subprocess
import sys
import threading

import pytest


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/good" else 503)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def root():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("path, code", [("/good", 0), ("/bad", 1)])
def test_the_answer_is_the_exit_code(root, path, code):
    assert (
        subprocess.run([sys.executable, "-m", "db.telemetry.http_check", root + path], check=False).returncode == code
    )


def test_nobody_there_and_a_wrong_call():
    refused = subprocess.run(
        [sys.executable, "-m", "db.telemetry.http_check", "http://127.0.0.1:1/"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "127.0.0.1:1" in refused.stderr
    assert (
        subprocess.run([sys.executable, "-m", "db.telemetry.http_check"], capture_output=True, check=False).returncode
        == 2
    )

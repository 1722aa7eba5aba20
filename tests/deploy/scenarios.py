"""The faults of the runbook's table, each done to a gateway of its own.

`settings` and `flags` make the gateway and its simulator; `warm` runs before the fault, so that copies are held; `breaks` is
the fault; `load` is what callers then do, again and again. A name is the first cell of a row of the table.
"""

import concurrent.futures
import http.server
import itertools
import signal
import socket
import subprocess
import threading
import time
import urllib.error
from dataclasses import dataclass, field
from typing import Callable

from programs import Gateway, fetch

PAGES = 10


def pages(gateway, _):
    """Pages that anyone asks for, which are fresh for a second only."""
    for number in range(PAGES):
        gateway.page(number)


def nothing(*_):
    pass


@dataclass(eq=False)
class Scenario:
    name: str
    breaks: Callable[[Gateway], None] = nothing
    settings: dict = field(default_factory=dict)
    flags: list = field(default_factory=list)
    warm: Callable[[Gateway], None] = lambda gateway: pages(gateway, 0)
    load: Callable[[Gateway, int], None] = pages
    # Seconds from one round of load to the next.
    every: float = 0.5


def fault(text, **where):
    return lambda gateway: gateway.fault(text, **where)


def together(queries, stream="st-1"):
    """Asks all at once."""
    def load(gateway, turn):
        with concurrent.futures.ThreadPoolExecutor(8) as callers:
            list(callers.map(lambda query: gateway.ask(query.format(turn=turn), stream), queries))
    return load


def everything(gateway, turn):
    """What a busy and healthy gateway sees: all kinds of answers, good keys and bad ones, and bytes that are no HTTP."""
    pages(gateway, turn)
    gateway.ask("?all=true", "st-2", headers={"Accept-Encoding": "gzip"})
    gateway.ask("?all=true", "st-3", headers={"Accept": "application/x-ndjson"})
    gateway.ask("?limit=nonsense")
    fetch(f"http://{gateway.traffic}/nowhere")
    gateway.ask(key="wrong")
    with socket.create_connection(tuple(gateway.traffic.split(":"))) as connection:
        connection.sendall(b"no HTTP\r\n\r\n")
        connection.recv(100)


def lists(gateway, turn):
    """Lists, and enough pages beside them that their errors are few."""
    for _ in range(3):
        pages(gateway, turn)
    gateway.ask("?all=true", "st-2")


def strangers(gateway, turn):
    """One request in a hundred is for a stream that is refused."""
    pages(gateway, turn)
    if turn % 4 == 0:
        gateway.page(0, "st-refused")


def crowd(gateway, turn):
    """More connections than may be open, each for a while."""
    host, port = gateway.traffic.split(":")
    with_patience = []
    for _ in range(6):
        connection = socket.create_connection((host, int(port)))
        with_patience.append(connection)
    time.sleep(0.3)
    for connection in with_patience:
        connection.close()


def reload(gateway):
    """With a configuration that makes no sense."""
    gateway.file.write_text(gateway.file.read_text() + "\nnonsense\n")
    gateway.process.send_signal(signal.SIGHUP)


def certificate(programs):
    """A pair of files that expire in a week."""
    pair = programs.folder / "certificate.pem", programs.folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7"]
    command += ["-subj", "/CN=localhost", "-out", pair[0], "-keyout", pair[1]]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return pair


def token_service():
    """The address of one that is down."""
    class Down(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_error(503)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Down)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/token"


HEALTHY = "nothing is wrong"


def scenarios(programs):
    shown, key = certificate(programs)
    streams = ["--calls-per-minute", "off", "--stream", "st-1=200", "--stream", "st-2=50", "--stream", "st-3=900"]
    by_account = [f'client_secret_file = "{programs.folder}/secret"']
    return [
        Scenario(HEALTHY, flags=streams, load=everything, settings={"merge": ["records_max = 500"]}),
        Scenario("some calls fail, copies are held", fault("status=503", share=0.5), flags=streams),
        Scenario("every call fails, copies are held", fault("status=503"), flags=streams),
        Scenario("every call fails, copies run out soon", fault("status=503"), flags=streams, settings={"cache": ['stale_for = "10m"']}),
        Scenario("every call fails, nothing is held", fault("status=503"), flags=streams, warm=nothing),
        Scenario("answers are no pages, copies are held", fault("invalid-json"), flags=streams),
        Scenario("the credential is refused, copies are held", fault("denied=credentials"), flags=streams),
        Scenario("one stream is refused", fault("denied=scope", stream="st-refused"),
                 flags=[*streams, "--stream", "st-refused=10"], load=strangers),
        Scenario("a secret is missing", flags=streams, warm=nothing,
                 settings={"[accounts]": [f'client_secret_file = "{programs.folder}/missing"']}),
        Scenario("the token service is down, and there is no token", flags=streams, warm=nothing,
                 settings={"[accounts]": [], "token": ['source = "service"'], "token.service": [f'url = "{token_service()}"']}),
        Scenario("somebody else spends the calls, copies are held", fault("status=429;header=Retry-After: 1"), flags=streams),
        Scenario("more is asked than there are calls, nothing is held", flags=streams, warm=nothing,
                 settings={"[accounts]": [*by_account, "calls_per_minute = 6"], "edge": ['request_timeout = "1s"']},
                 load=together(["?skip={turn}&limit=1"] * 2)),
        Scenario("a list changes while it is read", flags=[*streams, "--churn", "1"], load=lists,
                 settings={"merge": ["repairs_max = 0", "page_limit_max = 20"]}),
        Scenario("a list cannot be read", fault("stuck", stream="st-2"), flags=streams, load=lists,
                 settings={"merge": ["page_limit_max = 20"]}),
        Scenario("contacts of another account", fault("other-account"), flags=streams),
        Scenario("more load than fits", flags=[*streams, "--latency", "300ms"], warm=nothing, settings={"edge": ["waiting_max = 1"]},
                 load=together([f"?skip={{turn}}{number}&limit=10" for number in range(6)])),
        Scenario("more connections than may be open", flags=streams, settings={"listen": ["connections_max = 4"]}, load=crowd),
        Scenario("copies do not fit into memory", flags=["--calls-per-minute", "off", "--stream", "st-1=100000"],
                 settings={"cache": ['max_bytes = "1MiB"', 'lists_max_bytes = "0B"']},
                 load=lambda gateway, turn: [gateway.ask(f"?skip={100 * (5 * turn + at)}&limit=100") for at in range(5)]),
        Scenario("a certificate expires", flags=streams,
                 settings={"listen.tls": [f'certificate_file = "{shown}"', f'key_file = "{key}"']}),
        Scenario("a reload that is refused", reload, flags=streams),
        Scenario("it is killed again and again", flags=streams, every=4,
                 load=lambda gateway, turn: gateway.restart() if turn < 5 else None),
        Scenario("it is gone", lambda gateway: gateway.kill(), flags=streams, load=nothing),
    ]


class Load:
    """What callers of one gateway do, until it stops."""

    def __init__(self, scenario, gateway):
        self.scenario, self.gateway, self.stopped, self.error = scenario, gateway, threading.Event(), None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        for turn in itertools.count():
            try:
                self.scenario.load(self.gateway, turn)
            except (OSError, urllib.error.URLError, http.client.HTTPException):
                pass  # A caller who is not let in is part of some faults; what comes of it is read from the metrics.
            except Exception as error:
                self.error = error
                return
            if self.stopped.wait(self.scenario.every):
                return

    def stop(self):
        self.stopped.set()
        self.thread.join(20)
        if self.error:
            raise self.error

"""The load bench of whole lists: how long one takes to read upstream, and how long from memory.

The gateway has the first core, upstream (simulated, so slow for each page) and the caller the last one. Each list is
another stream's, so that each first answer is a walk of its own; then the same lists are read again, from memory. Each
answer is checked: every contact once, and no call too many. What is printed are medians, and the slowest.

At last a list that is too long to be kept is streamed line by line, and the gateway's memory is watched meanwhile.
"""

import argparse
import json
import math
import re
import socket
import statistics
import tempfile
import time
from pathlib import Path

from bench import BINARIES, CORES, LOAD_CORE, PATH, STREAM, ACCOUNT, Run, fail, prepare, say


LONG = f"{STREAM}-long"


class Lists(Run):
    def start(self):
        args = self.args
        sizes = {self.stream(number): args.contacts for number in range(args.lists)} | {LONG: args.streamed}
        streams = [flag for name, size in sizes.items() for flag in ("--stream", f"{name}={size}")]
        _, upstream = self.spawn(
            "simulator", [LOAD_CORE],
            [BINARIES / "contacts-gateway", "simulate", "--listen", "127.0.0.1:0", *self.account_flags(), *streams,
             "--limit-max", args.limit, "--latency", args.latency, "--calls-per-minute", "off"])
        config = self.configure("gateway", upstream, 1, f"""
            [cache]
            max_bytes = "1GiB"
            lists_max_bytes = "768MiB"
            [merge]
            width = {args.width}
            page_limit_max = {args.limit}
        """)
        self.gateway, self.address = self.spawn("gateway", CORES[:1], [BINARIES / "contacts-gateway", "serve", "--config", config])

    def stream(self, number):
        return f"{STREAM}-{number}"

    def ask(self, stream, *headers):
        """A connection on which a whole list was asked for."""
        host, port = self.address.split(":")
        caller = socket.create_connection((host, int(port)), timeout=60)
        path = PATH.replace(STREAM, stream)
        lines = [f"GET {path}?all=true HTTP/1.1", f"Host: {self.address}", f"accountId: {ACCOUNT}", *headers]
        caller.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        return caller

    def read(self, number):
        """A whole list: the time to its last byte, its head and its body."""
        before = time.perf_counter()
        with self.ask(self.stream(number)) as caller:
            received = bytearray()
            while b"\r\n\r\n" not in received:
                received += self.some(caller)
            head, _, body = bytes(received).partition(b"\r\n\r\n")
            head = head.decode()
            if not head.startswith("HTTP/1.1 200"):
                fail(f"list {number}: {head}\n{body[:300]!r}")
            length = int(re.search(r"content-length: (\d+)", head, re.I)[1])
            rest = memoryview(bytearray(length - len(body)))
            at = 0
            while at < len(rest):
                at += caller.recv_into(rest[at:]) or fail(f"list {number}: cut off")
            took = time.perf_counter() - before
        return took, head, body + bytes(rest)

    def some(self, caller):
        return caller.recv(1 << 16) or fail("the gateway closed the connection")

    def check(self, number, head, body):
        args = self.args
        ids = [contact["id"] for contact in json.loads(body)["results"]]
        if len(ids) != args.contacts or len(set(ids)) != args.contacts:
            fail(f"list {number}: {len(ids)} contacts, {len(set(ids))} of them different")
        status = re.search(r"merge-status: (.*)\r", head + "\r", re.I)[1]
        calls = int(re.search(r"calls=(\d+)", status)[1])
        most = math.ceil((args.contacts - 1) / (args.limit - 1)) + 1
        if not status.startswith("verified") or calls > most:
            fail(f"list {number}: {status}; at most {most} calls were expected")
        return calls

    def run(self):
        self.start()
        cold, warm, calls, length = [], [], 0, 0
        for number in range(self.args.lists):
            took, head, body = self.read(number)
            calls, length = max(calls, self.check(number, head, body)), len(body)
            cold.append(took)
            say(f"list {number + 1}/{self.args.lists}: {took * 1000:.0f} ms")
        for _ in range(5):
            for number in range(self.args.lists):
                took, head, body = self.read(number)
                if "; hit; " not in head:
                    fail(f"list {number} did not come from memory: {head}")
                warm.append(took)
            self.check(number, head, body)
        print(f"{self.args.contacts:,} contacts of {length / 1e6:.1f} MB, {self.args.latency} a page, width {self.args.width}: at most {calls} calls")
        for name, times in [("cold", cold), ("from memory", warm)]:
            print(f"{name:<12} median {statistics.median(times) * 1000:>7.1f} ms   slowest {max(times) * 1000:>7.1f} ms   of {len(times)}")


    def memory(self):
        """The gateway's resident memory now and at its highest, in MiB."""
        status = Path(f"/proc/{self.gateway.pid}/status").read_text()
        return [int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) / 1024 for key in ("VmRSS", "VmHWM")]

    def stream_long(self):
        # The lists that are kept by now do not count, and a new process has nothing to reuse.
        self.start()
        before, seen, first = self.memory()[0], set(), None
        started = time.perf_counter()
        with self.ask(LONG, "Accept: application/x-ndjson") as caller, caller.makefile("rb", 1 << 20) as answer:
            while (line := answer.readline()) != b"\r\n":
                if not line or (line.startswith(b"HTTP/1.1 ") and b" 200 " not in line):
                    fail(f"streamed: {line!r}: {answer.read(2000)!r}")
            for line in unchunked(answer):
                if line.startswith(b'{"$'):
                    break
                first = first or time.perf_counter() - started
                seen.add(json.loads(line)["id"])
                if len(seen) % 100_000 == 0:
                    say(f"streamed {len(seen):,} contacts")
            took = time.perf_counter() - started
        if b'"verdict":"verified"' not in line or len(seen) != self.args.streamed:
            fail(f"streamed: {len(seen)} different contacts, then {line!r}")
        print(f"{len(seen):,} contacts streamed in {took:.1f} s, the first after {first * 1000:.0f} ms; resident memory grew "
              f"from {before:.1f} to {self.memory()[1]:.1f} MiB at most")


def unchunked(answer):
    """The lines of a body in chunks."""
    rest = b""
    while size := int(answer.readline(), 16):
        *lines, rest = (rest + answer.read(size)).split(b"\n")
        answer.readline()
        yield from lines


def main():
    parser = argparse.ArgumentParser(
        prog="tests/load/run lists", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=int, default=10, help="10")
    parser.add_argument("--contacts", type=int, default=10_000, help="in each; 10000")
    parser.add_argument("--limit", type=int, default=100, help="of a page; 100")
    parser.add_argument("--latency", default="20ms", help="of each page; 20ms")
    parser.add_argument("--width", type=int, default=8, help="pages at once; 8")
    parser.add_argument("--streamed", type=int, default=1_000_000, help="contacts in the list that is streamed; 1000000")
    args = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory(prefix="contacts-gateway-load-") as directory:
        lists = Lists(args, directory)
        try:
            lists.run()
            lists.stream_long()
        finally:
            lists.end()


if __name__ == "__main__":
    main()

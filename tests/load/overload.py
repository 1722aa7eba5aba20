"""The overload bench: what becomes of good answers when three times as much is asked as fits.

Misses: so many requests may wait (`edge.waiting_max`), each for an upstream that takes its time, so that what fits is known.
They come at fixed rates, whether those before them were answered or not. A good answer is a 200 within a second; whoever
does not fit must be told at once, and a probe must still be answered. Hits: what fits is the first core. Connections that
ask again as soon as they are answered are made three times as many.

Goodput is the good answers a second. That of three times the load must be 90 % of the highest, or the exit code is 1.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time

from bench import BINARIES, CORES, HEADERS, HERE, LOAD_CORE, PATH, STREAM, ACCOUNT, Run, ask, connection, fail, prepare, say

GOOD_SECONDS = 1.0
LEAST = 0.9


class Overload(Run):
    def start(self):
        args = self.args
        _, upstream = self.spawn(
            "simulator", [LOAD_CORE],
            [BINARIES / "contacts-gateway", "simulate", "--listen", "127.0.0.1:0", *self.account_flags(),
             "--stream", f"{STREAM}=1000000", "--latency", f"{args.latency}ms", "--calls-per-minute", "off"])
        config = self.configure("gateway", upstream, 1, f"""
            [edge]
            waiting_max = {args.waiting}
            [cache]
            fresh_for = "1h"
        """)
        _, self.address, self.admin = self.both(
            [BINARIES / "contacts-gateway", "serve", "--config", config])
        self.next = 0

    def both(self, command):
        """Starts the gateway; where callers and operators connect."""
        announcement = r"http://(127\.0\.0\.1:\d+, operators on http://127\.0\.0\.1:\d+)"
        process, said = self.spawn("gateway", CORES[:1], command, announcement)
        traffic, _, admin = said.partition(", operators on http://")
        return process, traffic, admin

    # ---- Misses, at a fixed rate ----

    async def one(self, idle, seen):
        """One request for a page that nobody has asked for, on a connection that is free."""
        self.next += 1
        due = time.perf_counter()
        try:
            reader, writer = idle.pop() if idle else await asyncio.open_connection(*self.address.split(":"))
            lines = [f"GET {PATH}?skip={self.next % 999_000}&limit=1 HTTP/1.1", f"Host: {self.address}", f"accountId: {ACCOUNT}"]
            writer.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
        except (OSError, asyncio.IncompleteReadError) as error:
            fail(f"a connection failed under load: {error!r}")
        idle.append((reader, writer))
        seen.append((int(head.split(" ")[1]), time.perf_counter() - due))

    async def probe(self, took, done):
        while not done.is_set():
            before = time.perf_counter()
            reader, writer = await asyncio.open_connection(*self.admin.split(":"))
            writer.write(f"GET /livez HTTP/1.1\r\nHost: {self.admin}\r\nConnection: close\r\n\r\n".encode())
            if b" 200 " not in (await reader.read())[:20]:
                fail("a probe was not answered under load")
            writer.close()
            took.append(time.perf_counter() - before)
            await asyncio.sleep(0.1)

    async def misses(self, rate, seconds):
        """So many a second for so long: good, told that there is no room, late; and how long they took."""
        idle, seen, took, tasks, done = [], [], [], set(), asyncio.Event()
        probing = asyncio.create_task(self.probe(took, done))
        begun = time.perf_counter()
        for number in range(int(rate * seconds)):
            if (ahead := begun + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            task = asyncio.create_task(self.one(idle, seen))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        lasted = time.perf_counter() - begun
        await asyncio.gather(*tasks)
        done.set()
        await probing
        for _, writer in idle:
            writer.close()
        other = {status for status, _ in seen} - {200, 503}
        if other:
            fail(f"answers of another kind: {sorted(other)}")
        good = [took for status, took in seen if status == 200 and took <= GOOD_SECONDS]
        shed = [took for status, took in seen if status == 503]
        return {"offered": len(seen) / lasted, "good": len(good) / lasted, "shed": len(shed) / lasted,
                "late": (len(seen) - len(good) - len(shed)) / lasted,
                "good_p99": slowest(good), "shed_p99": slowest(shed), "probe_p99": slowest(took)}

    # ---- Hits, as many as can be ----

    def hits(self, connections, seconds):
        headers = [part for name, value in HEADERS.items() for part in ("-H", f"{name}: {value}")]
        command = ["taskset", "-c", LOAD_CORE, "wrk", "-t", 1, "-c", connections, "-d", f"{seconds}s", *headers,
                   "-s", HERE / "wrk.lua", f"http://{self.address}{PATH}", "--", PATH, 1, 10]
        result = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode != 0:
            fail(f"wrk failed: {result.stderr or result.stdout}")
        report = json.loads(result.stdout.splitlines()[-1])
        if report["errors"]:
            fail(f"{report['errors']} errors in {report['requests']} hits")
        return report["requests"] / (report["duration_us"] / 1e6), report["p99_us"] / 1000

    def run(self):
        args = self.args
        self.start()
        fits = args.waiting / (args.latency / 1000)
        print(f"misses: {args.waiting} may wait, {args.latency} ms each: {fits:.0f}/s fit")
        print(f"{'load':>6} {'offered/s':>10} {'good/s':>8} {'shed/s':>8} {'late/s':>7}  p99 of good, shed, probe (ms)")
        rates = {}
        for factor in (0.5, 0.8, 1, 1.5, 2, 3):
            row = asyncio.run(self.misses(factor * fits, args.seconds))
            rates[factor] = row["good"]
            times = "  ".join(f"{row[key] * 1000:>8.1f}" for key in ("good_p99", "shed_p99", "probe_p99"))
            print(f"{factor:>5}x {row['offered']:>10.0f} {row['good']:>8.0f} {row['shed']:>8.0f} {row['late']:>7.0f}  {times}", flush=True)
        shares = [rates[3] / max(rates.values())]
        say("hits")
        with connection(self.address) as caller:
            ask(caller, f"{PATH}?skip=0&limit=10", HEADERS, "the hot page")
        self.hits(args.connections, 1)
        samples = {factor: [] for factor in (1, 2, 3)}
        for _ in range(args.rounds):
            for factor, taken in samples.items():
                taken.append(self.hits(factor * args.connections, args.seconds))
        for factor, taken in samples.items():
            rate, p99 = (statistics.median(values) for values in zip(*taken))
            rates[factor] = rate
            print(f"hits, {factor * args.connections:>4} connections: {rate:>8,.0f} good/s, p99 {p99:.1f} ms")
        shares.append(rates[3] / max(rates[factor] for factor in samples))
        for what, share in zip(("misses", "hits"), shares):
            print(f"{what}: goodput of three times the load is {share:.0%} of the highest")
        if min(shares) < LEAST:
            fail(f"less than {LEAST:.0%}")


def slowest(times):
    """The time that one in a hundred takes longer than."""
    return sorted(times)[len(times) * 99 // 100] if times else 0.0


def main():
    parser = argparse.ArgumentParser(
        prog="tests/load/run overload", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="for each rate; 8")
    parser.add_argument("--waiting", type=int, default=16, help="requests that may wait; 16")
    parser.add_argument("--latency", type=int, default=50, help="of upstream, in ms; 50")
    parser.add_argument("--connections", type=int, default=64, help="for hits; 64, and twice and three times as many")
    parser.add_argument("--rounds", type=int, default=3, help="of hits; 3")
    args = parser.parse_args()
    if args.waiting / (args.latency / 1000) > 900:
        parser.error("more than 900 misses a second are more than an account may be configured for")
    prepare()
    with tempfile.TemporaryDirectory(prefix="contacts-gateway-load-") as directory:
        bench = Overload(args, directory)
        try:
            bench.run()
        finally:
            bench.end()


if __name__ == "__main__":
    main()

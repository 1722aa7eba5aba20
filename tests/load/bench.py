"""The load bench: what a cached page costs, as a ratio to a bare hyper server in the same run.

Two workloads: one hot page, and many keys taken by chance. Each target is pinned to the first core (or, with more
workers, cores), the load and the simulated upstream to the last one. The targets take turns within each round, and
another one begins each round, so that a machine that grows slower slows all of them. A round's result is its ratio to
the bare server of that round; what is printed is the median of the rounds.

The measure that counts is the CPU time of the target's process tree for each request, from /proc: a load generator on
one core has its own limit, and requests a second flatter whoever is slower than that.
"""

import argparse
import base64
import concurrent.futures
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BINARIES = ROOT / "target" / "dist"

ACCOUNT, CLIENT, SECRET, STREAM = "65f7d49a5dd06e2cefa00000", "cs-bench", "bench-secret", "st-1"
PATH = f"/agentassist/api/v1/public/{STREAM}/contacts"
HEADERS = {"accountId": ACCOUNT}
CORES = sorted(os.sched_getaffinity(0))
LOAD_CORE = CORES[-1]
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Target:
    name: str
    workers: int
    process: subprocess.Popen
    address: str
    # Whether its answers must be its own copies, and those of upstream byte for byte.
    caches: bool = True
    samples: dict = field(default_factory=dict)


class Run:
    """What belongs to one run: its arguments, its directory, and the processes that it started and will end."""

    def __init__(self, args, directory):
        self.args = args
        self.directory = Path(directory)
        self.secret = self.directory / "secret"
        self.secret.write_text(SECRET)
        self.processes = []

    def spawn(self, name, cores, command, announcement=r"http://(127\.0\.0\.1:\d+)\D"):
        """Starts a program on some cores and waits until its output says where it listens."""
        log = self.directory / f"{name}.log"
        command = ["taskset", "-c", ",".join(map(str, cores)), *map(str, command)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.processes.append(process)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            if found := re.search(announcement, log.read_text()):
                return process, found[1]
            time.sleep(0.02)
        fail(f"{name} did not say where it listens: {shlex.join(command)}\n{log.read_text()}")

    def account_flags(self):
        """The account, as the simulator is told it."""
        return ["--account-id", ACCOUNT, "--client-id", CLIENT, "--client-secret-file", self.secret]

    def configure(self, name, upstream, workers, more):
        """A gateway's configuration, with calls as good as without a limit."""
        config = self.directory / f"{name}.toml"
        config.write_text(f"""
            [listen]
            address = "127.0.0.1:0"
            workers = {workers}
            [admin]
            address = "127.0.0.1:0"
            [upstream]
            base_url = "http://{upstream}"
            allow_plaintext = true
            [[accounts]]
            name = "bench"
            account_id = "{ACCOUNT}"
            client_id = "{CLIENT}"
            client_secret_file = "{self.secret.name}"
            calls_per_minute = 60000
            [budget]
            start_share = 1.0
            [log]
            level = "warn"
            access = false
            {more}
        """)
        return config

    def end(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Bench(Run):
    """Cached pages."""

    # ---- The programs: how each is started, and how it says where it listens. ----

    def start_simulator(self):
        return self.spawn(
            "simulator",
            [LOAD_CORE],
            [BINARIES / "contacts-gateway", "simulate", "--listen", "127.0.0.1:0",
             *self.account_flags(), "--stream", f"{STREAM}={self.args.keys * self.args.limit}",
             "--limit-max", self.args.limit, "--calls-per-minute", "off"],
        )

    def start_gateway(self, workers):
        config = self.configure(f"gateway-{workers}", self.simulator[1], workers, """
            [cache]
            fresh_for = "1h"
            max_bytes = "512MiB"
        """)
        process, address = self.spawn(
            f"gateway-{workers}",
            CORES[:workers],
            [BINARIES / "contacts-gateway", "serve", "--config", config],
        )
        self.warm(address)
        return Target("gateway", workers, process, address)

    def start_bare(self, workers):
        """The least there can be: the hot page's bytes, and headers as many and as long as the gateway's."""
        answer = self.gateway_answer
        body = self.directory / "body"
        body.write_bytes(answer.body)
        flags = []
        for name, value in answer.headers:
            if name.lower() not in ("connection", "content-length", "date"):  # hyper's own
                flags += ["--header", f"{name}: {value}"]
        process, address = self.spawn(
            f"bare-{workers}",
            CORES[:workers],
            [BINARIES / "examples" / "bare", "--workers", workers, "--body", body, *flags],
        )
        return Target("bare", workers, process, address, caches=False)

    # A peer (nginx, HAProxy, Varnish) joins with a method like those above and a line here.
    TARGETS = {"bare": start_bare, "gateway": start_gateway}

    # ---- Before measuring ----

    def warm(self, address):
        """Every key once, so that all of them are copies from then on."""
        say(f"warming {self.args.keys:,} keys")
        share = range(8)

        def read(part):
            with connection(address) as caller:
                for key in range(part, self.args.keys, len(share)):
                    ask(caller, self.url(key), HEADERS, f"warming {self.url(key)}")

        with concurrent.futures.ThreadPoolExecutor(len(share)) as pool:
            list(pool.map(read, share))

    def verify(self, target):
        """Refuses to measure a target that answers anything but what it should."""
        step = max(1, self.args.keys // 100)
        with connection(target.address) as caller, connection(self.simulator[1]) as upstream:
            for key in range(0, self.args.keys, step):
                what = f"{target.name}, {self.url(key)}"
                answer = ask(caller, self.url(key), HEADERS, what)
                expected = self.gateway_answer.body
                if target.caches:
                    expected = ask(upstream, self.url(key), HEADERS | {"auth": token()}, f"upstream, {self.url(key)}").body
                if answer.body != expected:
                    fail(f"{what}: {len(answer.body)} bytes are not the {len(expected)} that were expected")
                if target.caches and "hit" not in answer.header("cache-status"):
                    fail(f"{what}: not a hit: Cache-Status: {answer.header('cache-status')}")

    def url(self, key):
        return f"{PATH}?skip={key * self.args.limit}&limit={self.args.limit}"

    # ---- Measuring ----

    def load(self, target, keys, seconds):
        headers = [part for name, value in HEADERS.items() for part in ("-H", f"{name}: {value}")]
        command = ["taskset", "-c", LOAD_CORE, "wrk", "-t", 1, "-c", self.args.connections, "-d", f"{seconds}s",
                   *headers, "-s", HERE / "wrk.lua", f"http://{target.address}{self.url(0)}", "--",
                   PATH, keys, self.args.limit]
        result = subprocess.run(
            [str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 30)
        if result.returncode != 0:
            fail(f"wrk failed: {result.stderr or result.stdout}")
        report = json.loads(result.stdout.splitlines()[-1])
        if report["errors"] or not report["requests"]:
            fail(f"{target.name}: {report['errors']} errors in {report['requests']} requests")
        return report

    def sample(self, target, keys):
        """One target under load for one round's time."""
        target_before, upstream_before = cpu_seconds(target.process.pid), cpu_seconds(self.simulator[0].pid)
        report = self.load(target, keys, self.args.seconds)
        cpu = cpu_seconds(target.process.pid) - target_before
        upstream = cpu_seconds(self.simulator[0].pid) - upstream_before
        if upstream > 0.02 * self.args.seconds:
            fail(f"{target.name}: the simulator worked for {upstream:.2f} s: those were not all hits")
        return {
            "requests_per_second": report["requests"] / (report["duration_us"] / 1e6),
            "cpu_us_per_request": cpu * 1e6 / report["requests"],
            "p50_us": report["p50_us"],
            "p99_us": report["p99_us"],
        }

    def run(self):
        args = self.args
        self.simulator = self.start_simulator()
        # The gateway comes first: its answer is what the bare server repeats.
        targets = []
        for name in sorted(args.targets, key="gateway".__ne__):
            for workers in args.workers:
                targets.append(self.TARGETS[name](self, workers))
                if not hasattr(self, "gateway_answer"):
                    with connection(targets[0].address) as caller:
                        self.gateway_answer = ask(caller, self.url(0), HEADERS, "the hot page")
        for target in targets:
            self.verify(target)

        workloads = {"hot page": 1, f"{args.keys:,} keys": args.keys}
        total = len(targets) * len(workloads) * (args.rounds * args.seconds + 1)
        say(f"measuring: {args.rounds} rounds of {args.seconds} s, about {total // 60} min {total % 60} s")
        for workload, keys in workloads.items():
            for target in targets:
                self.load(target, keys, 1)  # connections, allocator, branch predictors
                target.samples[workload] = []
        for number in range(args.rounds):
            first = number % len(targets)
            for workload, keys in workloads.items():
                for target in targets[first:] + targets[:first]:
                    sample = self.sample(target, keys)
                    target.samples[workload].append(sample)
                    say(f"round {number + 1}/{args.rounds}  {workload:<12} {target.name}, workers {target.workers}: "
                        f"{sample['requests_per_second']:,.0f} requests/s, {sample['cpu_us_per_request']:.2f} us each")
        for target in targets:
            self.verify(target)  # still hits
        return targets, list(workloads)


@dataclass
class Answer:
    headers: list
    body: bytes

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name), "")


def connection(address):
    return contextlib.closing(http.client.HTTPConnection(address, timeout=10))


def ask(caller, url, headers, what):
    caller.request("GET", url, headers=headers)
    response = caller.getresponse()
    body = response.read()
    if response.status != 200:
        fail(f"{what}: {response.status}: {body[:300]!r}")
    return Answer(response.getheaders(), body)


def token():
    """A JWT as upstream wants it, to read from the simulator what the gateway should answer."""
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    now = int(time.time())
    claims = {"appId": CLIENT, "sub": "bench", "iat": now - 30, "exp": now + 600}
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.digest(SECRET.encode(), signed, hashlib.sha256))).decode()


def cpu_seconds(root):
    """User and system time of a process, of those below it, and of those below it that have ended."""
    parents, ticks = {}, {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            pid = int(directory.name)
            stat = (directory / "stat").read_text().rpartition(")")[2].split()
            parents[pid], ticks[pid] = int(stat[1]), sum(map(int, stat[11:15]))
    if root not in ticks:
        fail(f"process {root} ended under load")
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return sum(ticks[pid] for pid in tree) / CLOCK_TICKS


def summarise(targets, workloads):
    """Medians of the rounds; a ratio is taken within its round, to the bare server with as many workers."""
    rows = []
    for workload in workloads:
        for target in targets:
            bare = next(t for t in targets if t.name == "bare" and t.workers == target.workers)
            pairs = list(zip(target.samples[workload], bare.samples[workload]))
            row = {"workload": workload, "target": target.name, "workers": target.workers}
            for measure in target.samples[workload][0]:
                ratios = [mine[measure] / its[measure] for mine, its in pairs]
                row[measure] = {
                    "median": statistics.median(mine[measure] for mine, _ in pairs),
                    "ratio": statistics.median(ratios),
                    "ratio_min": min(ratios),
                    "ratio_max": max(ratios),
                    "rounds": [mine[measure] for mine, _ in pairs],
                }
            rows.append(row)
    return rows


def print_table(rows):
    print(f"{'workload':<13}{'target':<9}{'workers':>7}  {'CPU/request':>11} {'ratio':>6} {'(min..max)':>13}"
          f"  {'requests/s':>10} {'ratio':>6}  {'p50':>8} {'p99':>8} {'ratio':>6}")
    for row in rows:
        cpu, rate, p99 = row["cpu_us_per_request"], row["requests_per_second"], row["p99_us"]
        spread = f"({cpu['ratio_min']:.2f}..{cpu['ratio_max']:.2f})"
        print(f"{row['workload']:<13}{row['target']:<9}{row['workers']:>7}  {cpu['median']:>8.2f} us {cpu['ratio']:>6.2f} {spread:>13}"
              f"  {rate['median']:>10,.0f} {rate['ratio']:>6.2f}"
              f"  {row['p50_us']['median'] / 1000:>5.2f} ms {p99['median'] / 1000:>5.2f} ms {p99['ratio']:>6.2f}")


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    sys.exit(f"tests/load/run: {text}")


def arguments():
    def names(text):
        chosen = text.split(",")
        if unknown := set(chosen) - set(Bench.TARGETS):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(Bench.TARGETS)}")
        # The bare server is the measure, and the gateway's answer is what it repeats.
        return list(dict.fromkeys(["gateway", "bare", *chosen]))

    def numbers(text):
        return [positive(part) for part in text.split(",")]

    def positive(text):
        number = int(text)
        if number < 1:
            raise argparse.ArgumentTypeError(f"{number} is not positive")
        return number

    parser = argparse.ArgumentParser(
        prog="tests/load/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=5, help="5")
    parser.add_argument("--seconds", type=positive, default=5, help="of load for each target and workload in a round; 5")
    parser.add_argument("--connections", type=positive, default=64, help="open at once; 64")
    parser.add_argument("--workers", type=numbers, default=[1], help="of each target, as in 1 or 1,2; 1")
    parser.add_argument("--targets", type=names, default=["gateway", "bare"],
                        help=f"any of {','.join(Bench.TARGETS)}; gateway and bare always run")
    parser.add_argument("--limit", type=positive, default=10, help="contacts in a page; 10")
    parser.add_argument("--keys", type=positive, default=10_000, help="of the second workload; 10000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here, each round's too")
    args = parser.parse_args()
    if args.keys * args.limit > 1_000_000:
        parser.error("--keys times --limit is more than the simulator's 1,000,000 contacts")
    return args


def prepare():
    """Builds what is measured, and leaves the first core to it."""
    if len(CORES) < 2:
        fail("needs two cores: one for the target, one for the load")
    # All with the same flags, or the ratios would compare those.
    build = ["cargo", "build", "--locked", "--profile", "dist", "--target-dir", ROOT / "target",
             "--bin", "contacts-gateway", "--example", "bare"]
    if subprocess.run(build, cwd=ROOT).returncode != 0:
        fail("what is measured does not build")
    os.sched_setaffinity(0, [LOAD_CORE])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` runs


def main():
    args = arguments()
    if max(args.workers) > len(CORES):
        fail(f"--workers: there are {len(CORES)} cores")
    if max(args.workers) == len(CORES):
        say("The load shares a core with the last worker: of that target CPU/request counts, requests a second do not.")
    if (busy := os.getloadavg()[0]) > 0.5:
        say(f"The machine is not idle (load {busy:.1f}): expect the ratios to scatter.")

    prepare()

    with tempfile.TemporaryDirectory(prefix="contacts-gateway-load-") as directory:
        bench = Bench(args, directory)
        try:
            targets, workloads = bench.run()
        except KeyboardInterrupt:
            fail("interrupted")
        finally:
            bench.end()
    rows = summarise(targets, workloads)
    print_table(rows)
    if args.json:
        parameters = {key: value for key, value in vars(args).items() if key != "json"}
        args.json.write_text(json.dumps({"parameters": parameters, "cores": len(CORES), "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

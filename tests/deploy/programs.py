"""The programs of a run: simulators, gateways, a Prometheus that watches them. Each has a free port and ends with the run."""

import contextlib
import hashlib
import json
import re
import shlex
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "target" / "debug" / "contacts-gateway"
ACCOUNT, CLIENT, SECRET, KEY = "65f7d49a5dd06e2cefa00000", "cs-deploy", "deploy-secret", "deploy-key"

# Certificates here are made for one run, and say nothing about who shows them.
ANY_CERTIFICATE = ssl._create_unverified_context()


class Failed(Exception):
    """What a run proves does not hold, in words."""


def fetch(url, headers=None, method="GET", timeout=15):
    """The status and the body, whatever the status."""
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=ANY_CERTIFICATE) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def wait(until, what, seconds=30):
    """Waits until something is so; the bound is there for a machine that is busy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if found := until():
                return found
        time.sleep(0.1)
    raise Failed(f"{what}: not within {seconds} s")


class Programs:
    """Those that a run started, by its folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.running = []
        (self.folder / "secret").write_text(SECRET)

    def spawn(self, name, command, announcement, **more):
        """Starts a program, and waits until its output says where it listens."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output, **more)
        self.running.append(process)

        def said():
            if process.poll() is not None:
                raise Failed(f"{name} ended: {shlex.join(map(str, command))}\n{log.read_text()}")
            return re.search(announcement, log.read_text())

        return process, wait(said, f"{name} says where it listens")

    def end(self):
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait()

    def simulator(self, name, flags):
        """Its address."""
        command = [BINARY, "simulate", "--listen", "127.0.0.1:0", "--account-id", ACCOUNT, "--client-id", CLIENT]
        command += ["--client-secret-file", self.folder / "secret", *flags]
        _, said = self.spawn(f"{name}-simulator", command, r"(http://127\.0\.0\.1:\d+)")
        return said[1]

    def gateway(self, name, simulator, settings):
        return Gateway(self, name, simulator, settings)

    def prometheus(self, targets):
        return Prometheus(self, targets)


class Gateway:
    """A gateway with one account and one caller. `settings` has lines for sections, by their names."""

    def __init__(self, programs, name, simulator, settings):
        self.programs, self.name, self.simulator = programs, name, simulator
        sections = {
            "listen": ['address = "127.0.0.1:0"'],
            "admin": ['address = "127.0.0.1:0"'],
            "upstream": [f'base_url = "{simulator}"', "allow_plaintext = true"],
            "budget": ["start_share = 1.0"],
            "cache": ['fresh_for = "1s"'],
            "log": ['format = "json"', "access = false"],
        }
        for section, lines in settings.items():
            sections[section] = sections.get(section, []) + lines
        account = sections.pop("[accounts]", ["calls_per_minute = 60000", f'client_secret_file = "{programs.folder}/secret"'])
        account = [f'name = "acme"\naccount_id = "{ACCOUNT}"\nclient_id = "{CLIENT}"', *account]
        caller = ['name = "crm"\naccounts = ["acme"]', f'key_sha256 = ["{hashlib.sha256(KEY.encode()).hexdigest()}"]']
        tables = {**sections, "[accounts]": account, "[callers]": caller}
        self.file = programs.folder / f"{name}.toml"
        self.file.write_text("".join(f"[{table}]\n" + "\n".join(lines) + "\n\n" for table, lines in tables.items()))
        self.scheme = "https" if "listen.tls" in sections else "http"
        self.start({})

    def start(self, addresses):
        command = [BINARY, "serve", "--config", self.file]
        announcement = r'"traffic":"([\d.:]+)","admin":"([\d.:]+)"'
        self.process, said = self.programs.spawn(self.name, command, announcement, env=addresses)
        self.traffic, self.admin = said[1], said[2]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def restart(self):
        """Killed, and started where it was."""
        self.kill()
        self.start({"CONTACTS_GATEWAY__LISTEN__ADDRESS": self.traffic, "CONTACTS_GATEWAY__ADMIN__ADDRESS": self.admin})

    def ask(self, query="", stream="st-1", key=KEY, headers=None, timeout=15):
        """The status of a request."""
        path = f"{self.scheme}://{self.traffic}/agentassist/api/v1/public/{stream}/contacts{query}"
        return fetch(path, {"Authorization": f"Bearer {key}", **(headers or {})}, timeout=timeout)[0]

    def page(self, number, stream="st-1"):
        return self.ask(f"?skip={10 * number}&limit=10", stream)

    def fault(self, fault, **where):
        """Something is wrong with upstream's answers from now on."""
        query = urllib.parse.urlencode({"fault": fault, **where})
        status, said = fetch(f"{self.simulator}/_simulator/faults?{query}", method="POST")
        if status != 200:
            raise Failed(f"the simulator refuses {fault}: {said.decode()}")

    def metrics(self):
        """The names of what it exports."""
        return set(re.findall(r"^# TYPE (\S+)", fetch(f"http://{self.admin}/metrics")[1].decode(), re.M))


class Prometheus:
    """The real one, with the rules as they are shipped, asking each second."""

    def __init__(self, programs, targets):
        rules = [str(ROOT / "deploy" / "prometheus" / name) for name in ("recording.yml", "alerts.yml")]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": [{"job_name": "contacts-gateway", "static_configs": [{"targets": targets}]}],
        }
        folder = programs.folder / "prometheus"
        folder.mkdir()
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config))
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        command += ["--web.listen-address=127.0.0.1:0", "--log.format=json"]
        _, said = programs.spawn("prometheus", command, r'"address":"(127\.0\.0\.1:[1-9]\d*)"')
        self.address = said[1]
        wait(lambda: fetch(f"http://{self.address}/-/ready")[0] == 200, "Prometheus is ready")

    def get(self, path, **query):
        status, body = fetch(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}")
        answer = json.loads(body)
        if status != 200 or answer["status"] != "success":
            raise Failed(f"Prometheus refuses {query}: {answer.get('error')}")
        return answer["data"]

    def query(self, expression):
        """(labels, value) of each series."""
        data = self.get("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

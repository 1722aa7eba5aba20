"""Proves the dashboard and the alerts on the real Prometheus: gateways under load, each with another fault or none.

Every query of the dashboard has series, and finite ones. Every fault moves the metrics that the runbook's table names, and
makes true just the alerts that it names; without a fault there are none.
"""

import concurrent.futures
import importlib.util
import json
import math
import re
import sys
import tempfile
import time

from programs import ROOT, Failed, Programs, fetch, wait
from scenarios import HEALTHY, Load, scenarios
from table import rows

# How long callers are there before something breaks; after it at least, and at most on a machine that has much else to do.
WARM, LOADED, LOADED_MAX = 3, 25, 100

VARIABLES = {"$instance": ".+", "$account": ".+", "$__rate_interval": "20s"}
METRIC = re.compile(r"(?<![:\w])contacts_gateway_\w+")


def dashboard():
    return json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())


def not_shown():
    spec = importlib.util.spec_from_file_location("dashboard", ROOT / "deploy" / "grafana" / "dashboard.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {f"contacts_gateway_{name}" for name in module.NOT_SHOWN}


def family(name, exported):
    """The metric that a series belongs to."""
    return next((name.removesuffix(end) for end in ("", "_bucket", "_sum", "_count") if name.removesuffix(end) in exported), None)


def check_names(exported):
    """All that is asked for is exported, and all that is exported is shown, or said not to be."""
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    recorded = (ROOT / "deploy" / "prometheus" / "recording.yml").read_text()
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    for where, texts in (("the dashboard", queries), ("the recording rules", [recorded]), ("the alerts", [alerts])):
        for name in {name for text in texts for name in METRIC.findall(text)}:
            if family(name, exported) is None:
                yield f"{where}: there is no metric {name}"
    shown = {family(name, exported) for text in [*queries, recorded] for name in METRIC.findall(text)}
    for name in sorted(exported - shown - not_shown()):
        yield f"no panel shows {name}: add one, or say in NOT_SHOWN why not"
    for name in sorted(not_shown() & shown):
        yield f"{name} is in NOT_SHOWN, and shown"
    for name in sorted(not_shown() - exported):
        yield f"{name} is in NOT_SHOWN, and there is no such metric"


def check_panels(prometheus):
    """Each query has series, and each series a number."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            try:
                series = prometheus.query(expression)
            except Failed as failure:
                yield f"panel {panel['title']}: {failure}"
                continue
            if not series:
                yield f"panel {panel['title']}: nothing comes of {expression}"
            for labels, value in series:
                if not math.isfinite(value):
                    yield f"panel {panel['title']}: {value} for {labels} of {expression}"


def active(prometheus):
    """The alerts of each instance whose expression is true, however long already."""
    alerts = {}
    for alert in prometheus.get("alerts")["alerts"]:
        summary = alert["annotations"]["summary"]
        if "<error" in summary or "<no value>" in summary:
            raise Failed(f"a summary cannot be filled in: {summary}")
        alerts.setdefault(alert["labels"].get("instance"), {})[alert["labels"]["alertname"]] = summary
    return alerts


def status(gateway):
    """All that the ops page is drawn from, as one text."""
    if gateway.process.poll() is not None:
        return ""
    return json.dumps(json.loads(fetch(f"http://{gateway.admin}/api/status")[1]), ensure_ascii=False)


def check_faults(prometheus, gateways):
    """What the table says of each fault is so."""
    table = {row.fault: row for row in rows() if row.done}
    names = {scenario.name for scenario in gateways} - {HEALTHY}
    for name in sorted(names ^ set(table)):
        yield f"the runbook's table and the scenarios differ in: {name}"
    alerts = active(prometheus)
    healthy = next(gateway.admin for scenario, gateway in gateways.items() if scenario.name == HEALTHY)
    for scenario, gateway in gateways.items():
        fired = alerts.get(gateway.admin, {})
        row = table.get(scenario.name)
        expected = set(row.alerts) if row else set()
        if set(fired) != expected:
            yield f"{scenario.name}: the alerts are {sorted(fired)}, and should be {sorted(expected)}"
        said = status(gateway)
        for words in row.says if row else []:
            if words not in said:
                yield f"{scenario.name}: the ops page does not say {words!r}: {said}"
        for metric in row.metrics if row else []:
            metric = metric if metric == "up" else f"contacts_gateway_{metric}"
            values = {labels["instance"]: value for labels, value in prometheus.query(f"sum by (instance) ({metric})")}
            if values.get(gateway.admin, 0) == values.get(healthy, 0):
                yield f"{scenario.name}: {metric} is {values.get(gateway.admin, 0)}, as without it"


def check(prometheus, gateways):
    running = [gateway for gateway in gateways.values() if gateway.process.poll() is None]
    exported = set().union(*(gateway.metrics() for gateway in running))
    return [*check_names(exported), *check_panels(prometheus), *check_faults(prometheus, gateways)]


def run(programs):
    declared = scenarios(programs)

    def start(scenario):
        name = scenario.name.replace(" ", "-").replace(",", "")
        return programs.gateway(name, programs.simulator(name, scenario.flags), scenario.settings)

    with concurrent.futures.ThreadPoolExecutor(4) as starters:
        gateways = dict(zip(declared, starters.map(start, declared)))
    prometheus = programs.prometheus([gateway.admin for gateway in gateways.values()])
    wait(lambda: len(prometheus.query("up == 1")) == len(gateways), "Prometheus sees all gateways")
    print(f"{len(gateways)} gateways run, and a Prometheus")

    for scenario, gateway in gateways.items():
        scenario.warm(gateway)
    time.sleep(WARM)
    for scenario, gateway in gateways.items():
        scenario.breaks(gateway)
    loads = [Load(scenario, gateway) for scenario, gateway in gateways.items()]
    deadline = time.monotonic() + LOADED_MAX
    time.sleep(LOADED)
    # While there still is load, so that no rate is one of nothing.
    while (wrong := check(prometheus, gateways)) and time.monotonic() < deadline:
        time.sleep(5)
    for load in loads:
        load.stop()
    return wrong


def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="contacts-gateway-deploy-") as folder:
        programs = Programs(folder)
        try:
            wrong = run(programs)
        except Failed as failure:
            wrong = [str(failure)]
        finally:
            programs.end()
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{'failed' if wrong else 'all of it holds'}, after {time.monotonic() - began:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

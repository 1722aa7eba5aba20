"""Proves of the dashboard, the rules and the runbook what can be seen without running anything."""

import importlib.util
import itertools
import json
import re
import sys

import yaml

from programs import ROOT
from table import RUNBOOK, anchors, rows

DEPLOY = ROOT / "deploy"
BASE = "https://git.example.com/contacts-gateway/blob/main/deploy/runbook.md"


def load(path):
    """A Python file that is no module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alerts():
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def check_generated():
    dashboard = load(DEPLOY / "grafana" / "dashboard.py").dashboard()
    if json.loads((DEPLOY / "grafana" / "dashboard.json").read_text()) != dashboard:
        yield "dashboard.json is not what dashboard.py writes: run it"
    if (DEPLOY / "kubernetes" / "rules.yaml").read_text() != load(DEPLOY / "kubernetes" / "rules.py").rules():
        yield "kubernetes/rules.yaml is not what rules.py writes: run it"


def check_panels():
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    panels = dashboard["panels"]
    for what in ("id", "title"):
        values = [panel[what] for panel in panels]
        for value in {value for value in values if values.count(value) > 1}:
            yield f"two panels have the {what} {value}"
    for one, other in itertools.combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        if not apart:
            yield f"panels overlap: {one['title']}, {other['title']}"
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels:
        title, place = panel["title"], panel["gridPos"]
        if place["x"] < 0 or place["x"] + place["w"] > 24 or min(place["w"], place["h"]) < 1:
            yield f"panel {title} stands outside of the grid"
        if panel["type"] == "row":
            continue
        if not panel["description"] or not panel["fieldConfig"]["defaults"]["unit"]:
            yield f"panel {title} has no description, or no unit"
        for link in panel["links"]:
            if link["url"].removeprefix("${runbook}#") not in anchors():
                yield f"panel {title} links to {link['url']}, which is no section of the runbook"
        for target in panel["targets"]:
            for name in re.findall(r"\$\{?(\w+)", target["expr"] + target["datasource"]["uid"]):
                if name not in variables and name != "__rate_interval":
                    yield f"panel {title}: there is no variable {name}"
            selectors = re.findall(r"contacts_gateway_[\w:]+(\{[^}]*\})?", target["expr"])
            if any("$instance" not in selector for selector in selectors):
                yield f"panel {title} does not ask for the chosen gateway alone: {target['expr']}"
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                if not re.search(rf"by \([^)]*\b{label}\b", target["expr"]) and label != "instance":
                    yield f"panel {title}: a legend names {label}, which its series do not have"


def check_alerts():
    tests = yaml.safe_load((ROOT / "tests" / "deploy" / "alerts.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    named = [name for row in rows() for name in row.alerts]
    for rule in alerts():
        name, notes = rule["alert"], rule["annotations"]
        if rule["labels"]["severity"] not in ("critical", "warning"):
            yield f"{name} has another severity"
        if set(notes) != {"summary", "runbook_url"} or notes["runbook_url"] != f"{BASE}#{name.lower()}":
            yield f"{name} wants a summary, and a link to its section of the runbook"
        if name.lower() not in anchors():
            yield f"{name} has no section in the runbook"
        steps = RUNBOOK.read_text().split(f"\n## {name}\n", 1)[-1].split("\n## ", 1)[0]
        if not re.search(r"^1\. ", steps, re.M):
            yield f"{name}: its section has no steps"
        if name not in named:
            yield f"{name} is not in the runbook's table"
        own = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == name]
        if set(own) != {True, False}:
            yield f"{name} wants a case in which it fires, and one in which it does not"
    known = {rule["alert"] for rule in alerts()}
    for name in sorted(set(re.findall(r"ContactsGateway[A-Z]\w+", RUNBOOK.read_text())) | set(named)):
        if name not in known:
            yield f"the runbook names {name}, which is no alert"


def check_table():
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    recorded = {rule["record"]: rule["expr"] for group in yaml.safe_load((DEPLOY / "prometheus" / "recording.yml").read_text())["groups"] for rule in group["rules"]}
    panels = {panel["title"]: " ".join(target["expr"] for target in panel["targets"]) for panel in dashboard["panels"] if "targets" in panel}
    for title, queries in panels.items():
        panels[title] = queries + " ".join(expression for name, expression in recorded.items() if name in queries)
    for row in rows():
        for panel in row.panels:
            if panel not in panels and panel != "none":
                yield f"{row.fault}: there is no panel {panel}"
        for metric in row.metrics:
            shown = any(f"contacts_gateway_{metric.split('{')[0]}" in panels.get(panel, "") for panel in row.panels)
            if not shown and metric != "up":
                yield f"{row.fault}: none of its panels shows {metric}"


def check_links():
    """Links from one section of the runbook to another, and the panels that it names in its steps."""
    for target in re.findall(r"\]\(#([\w-]+)\)", RUNBOOK.read_text()):
        if target not in anchors():
            yield f"the runbook links to #{target}, which is no section"


def main():
    checks = (check_generated, check_panels, check_alerts, check_table, check_links)
    wrong = [line for check in checks for line in check()]
    for line in wrong:
        print(line, file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

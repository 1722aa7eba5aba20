"""The runbook's table of faults: which metrics move, which panels show it, which alerts fire, what the ops page says."""

import re
from dataclasses import dataclass
from pathlib import Path

RUNBOOK = Path(__file__).resolve().parents[2] / "deploy" / "runbook.md"


@dataclass
class Row:
    fault: str
    metrics: list
    panels: list
    alerts: list
    says: list
    # Whether a run does it to a gateway; otherwise the rule tests alone tell.
    done: bool


def rows():
    text = RUNBOOK.read_text()
    table = text.split("\n| Fault |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    for line in table:
        fault, _, metrics, panels, alerts, says = (cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|"))
        words = [re.findall(r"`([^`]+)`", cell.replace("\0", "|")) for cell in (metrics, alerts, says)]
        yield Row(fault.removesuffix(" *"), words[0], panels.split(", "), words[1], words[2], not fault.endswith("*"))


def anchors():
    """What a link to a heading of the runbook ends with."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

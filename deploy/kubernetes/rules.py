"""Writes rules.yaml beside it, from ../prometheus: `python3 rules.py`. Change those files, never that one."""

from pathlib import Path

HEAD = """\
# For the Prometheus operator: the rules of ../prometheus, written by rules.py.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: contacts-gateway
  labels:
    app.kubernetes.io/name: contacts-gateway
spec:
  groups:
"""


def rules():
    here = Path(__file__).resolve().parent
    files = [here.parent / "prometheus" / name for name in ("recording.yml", "alerts.yml")]
    groups = [file.read_text().split("\ngroups:\n", 1)[1] for file in files]
    lines = "\n".join(groups).rstrip("\n").split("\n")
    return HEAD + "".join(f"  {line}".rstrip() + "\n" for line in lines)


if __name__ == "__main__":
    Path(__file__).with_name("rules.yaml").write_text(rules())

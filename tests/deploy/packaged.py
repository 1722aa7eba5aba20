"""Proves of the image, of compose and of the Kubernetes manifests what needs neither an engine nor a cluster.

The image's build line runs, as a check, in a folder that has nothing but what the Dockerfile copies. What containers are told to
run is run here, with the files that they are given. Manifests fit their schemas and each other.
"""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import jsonschema
import kubernetes_validate
import tomllib
import yaml

from programs import BINARY, ROOT, Failed, Programs, fetch, wait

DEPLOY = ROOT / "deploy"

# What gcr.io/distroless/cc-debian12 has.
LIBRARIES = {"linux-vdso.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def instructions():
    """(instruction, arguments) of the Dockerfile, comments and continued lines undone."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, arguments = line.partition(" ")
        yield name, arguments


def run(command, **more):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(map(str, command))} ends with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def check_build():
    """What is copied is there, is not ignored, and is enough to build."""
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    # In the same place each time, with the times of the files: what has not changed is not checked again.
    tree = ROOT / "target" / "packaged"
    shutil.rmtree(tree, ignore_errors=True)
    for name, arguments in instructions():
        if name != "COPY" or "--from" in arguments:
            continue
        *sources, target = arguments.split()
        for source in sources:
            if not any(fnmatch.fnmatch(source, pattern) for pattern in kept):
                raise Failed(f"the Dockerfile copies {source}, and Dockerfile.dockerignore keeps it away")
            destination = tree / target / source if target.endswith("/") else tree / target
            destination.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy2
            copy(ROOT / source, destination)
    lines = [arguments for name, arguments in instructions() if name == "RUN" and "cargo build" in arguments]
    [line] = re.findall(r"cargo build [^&]+", lines[0])
    # As a check, and with what is built here already: an optimised build takes minutes, and finds nothing more that is missing.
    line = line.replace("cargo build", "cargo check").replace('"$PROFILE"', "dev").replace("/target", str(ROOT / "target"))
    run(["bash", "-c", line], cwd=tree)


def check_binary():
    """The final image has what the program needs, and the program has the commands that the image and its check name."""
    needed = set(re.findall(r"([\w.+-]+\.so\.\d+)", run(["ldd", BINARY])))
    if needed - LIBRARIES:
        raise Failed(f"the program needs {sorted(needed - LIBRARIES)}, which the final image has not")
    found = dict(instructions())
    command = json.loads(found["HEALTHCHECK"].partition("CMD ")[2])
    for words in (command, json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"])[:1]):
        run([BINARY, *words[1:], "--help"])
    if found["USER"].split(":")[0] in ("root", "0"):
        raise Failed("the image runs as root")
    stages = [arguments for name, arguments in instructions() if name == "FROM"]
    if "distroless" not in stages[-1] or not stages[-1].endswith(":nonroot"):
        raise Failed("the final image should have no shell, and not be root's")


def check_compose(folder):
    """The schema; the files that it names; and the simulator and the gateway as it starts them."""
    file = DEPLOY / "compose.yaml"
    run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file])
    compose = yaml.safe_load(file.read_text())
    named = [*compose["configs"].values(), *compose["secrets"].values()]
    for entry in named:
        if not (DEPLOY / entry["file"]).is_file():
            raise Failed(f"compose.yaml names {entry['file']}, which is not there")
    for service, entry in compose["services"].items():
        for config in entry.get("configs", []):
            if config["source"] not in compose["configs"]:
                raise Failed(f"{service} wants {config['source']}, which is no config of compose.yaml")
    for image in (entry["image"] for entry in compose["services"].values()):
        if ":" not in image and image != "contacts-gateway":
            raise Failed(f"{image} has no version")

    # Prometheus finds its rules where they are put.
    place = folder / "prometheus-of-compose"
    place.mkdir()
    for config in compose["services"]["prometheus"]["configs"]:
        shutil.copy(DEPLOY / compose["configs"][config["source"]]["file"], place / Path(config["target"]).name)
    run(["promtool", "check", "config", place / "prometheus.yml"])

    # Grafana: the data source that the dashboard chooses, and the folder that it is put into.
    provider = yaml.safe_load((DEPLOY / compose["configs"]["dashboards"]["file"]).read_text())["providers"][0]
    dashboard = next(config["target"] for config in compose["services"]["grafana"]["configs"] if config["source"] == "dashboard")
    if str(Path(dashboard).parent) != provider["options"]["path"]:
        raise Failed("Grafana does not look for the dashboard where compose.yaml puts it")

    secret = str(DEPLOY / compose["secrets"]["kore"]["file"])
    programs = Programs(folder)
    try:
        command = [word.replace("/run/secrets/kore", secret).replace("0.0.0.0:9000", "127.0.0.1:0") for word in compose["services"]["simulator"]["command"]]
        _, said = programs.spawn("compose-simulator", [BINARY, *command], r"(http://127\.0\.0\.1:\d+)")
        settings = folder / "compose-gateway.toml"
        settings.write_text((DEPLOY / "compose" / "gateway.toml").read_text().replace("/run/secrets/kore", secret))
        environment = {f"CONTACTS_GATEWAY__{key}": value for key, value in
                       {"LISTEN__ADDRESS": "127.0.0.1:0", "ADMIN__ADDRESS": "127.0.0.1:0", "UPSTREAM__BASE_URL": said[1]}.items()}
        gateway, said = programs.spawn("compose-gateway", [BINARY, "serve", "--config", settings], r'"traffic":"([\d.:]+)","admin":"([\d.:]+)"', env=environment)
        traffic, admin = said[1], said[2]
        status, body = fetch(f"http://{traffic}/agentassist/api/v1/public/st-1/contacts", {"Authorization": "Bearer demo"})
        if status != 200:
            raise Failed(f"a caller of compose's gateway gets {status}: {body.decode()}")
        health = [BINARY, "health", "--admin", f"http://{admin}"]
        wait(lambda: subprocess.run(health, capture_output=True, check=False).returncode == 0, "the health check is content")
        gateway.kill()
        gateway.wait()
        if subprocess.run(health, capture_output=True, check=False).returncode != 1:
            raise Failed("the health check of a gateway that is gone does not fail")
    finally:
        programs.end()


def check_with_operator(manifest):
    """By the Prometheus operator's own types, which know every field's type and pattern, and by the schema beside this file, which refuses
    what it does not know."""
    valid = ["node", ROOT / "target" / "operator" / "valid.mjs"]
    run(valid, input=json.dumps(manifest))
    for spoilt in ({**manifest, "spec": []}, {**manifest, "kind": "Monitor"}):
        if subprocess.run(valid, input=json.dumps(spoilt), capture_output=True, text=True, check=False).returncode != 1:
            raise Failed(f"the operator's types take any {manifest['kind']}")
    schema = Path(__file__).parent / "schemas" / f"{manifest['kind'].lower()}.json"
    jsonschema.validate(manifest, json.loads(schema.read_text()))


def manifests():
    return {path.name: yaml.safe_load(path.read_text()) for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))}


def check_manifests(folder):
    """Each by its schema, of which every one is found; then what they say of each other."""
    found = manifests()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, manifest in found.items():
            try:
                if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
                    check_with_operator(manifest)
                else:
                    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
            except (jsonschema.ValidationError, kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                raise Failed(f"kubernetes/{name}: {type(error).__name__} {error}") from error

    deployment, service = found["deployment.yaml"]["spec"], found["service.yaml"]["spec"]
    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    labels = deployment["template"]["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = tomllib.loads(found["configmap.yaml"]["data"]["gateway.toml"])
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    drain = 30
    for true, said in [
        (deployment["replicas"] == 1 and deployment["strategy"] == {"type": "Recreate"}, "one replica, replaced and never doubled"),
        (service["selector"].items() <= labels.items(), "the service selects the pods"),
        (deployment["selector"]["matchLabels"].items() <= labels.items(), "the deployment selects its pods"),
        (found["networkpolicy.yaml"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items(), "the network policy is for the pods"),
        (found["servicemonitor.yaml"]["spec"]["selector"]["matchLabels"].items() <= found["service.yaml"]["metadata"]["labels"].items(), "the monitor selects the service"),
        (found["service.yaml"]["metadata"]["labels"][found["servicemonitor.yaml"]["spec"]["jobLabel"]] == "contacts-gateway", "the job has the name that the alerts know"),
        ({port["targetPort"] for port in service["ports"]} <= set(ports), "the service's ports are the container's"),
        ({endpoint["port"] for endpoint in found["servicemonitor.yaml"]["spec"]["endpoints"]} <= {port["name"] for port in service["ports"]}, "the monitor's port is the service's"),
        ({container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {"admin"}, "probes ask the admin port"),
        (settings["listen"]["address"].endswith(f":{ports['traffic']}") and settings["admin"]["address"].endswith(f":{ports['admin']}"), "the configuration has the container's ports"),
        (pod["terminationGracePeriodSeconds"] > drain, "the grace period outlasts the drain"),
        (container["image"] == f"contacts-gateway:{version}", "the image is of this version"),
        ({mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}, "volumes are there and mounted"),
        (Path(settings["accounts"][0]["client_secret_file"]).parent == Path(container["volumeMounts"][1]["mountPath"]), "the secret is where it is mounted"),
    ]:
        if not true:
            raise Failed(f"the manifests do not agree: {said}")

    secret = folder / "acme"
    secret.write_text("a secret")
    file = folder / "configmap.toml"
    file.write_text(found["configmap.yaml"]["data"]["gateway.toml"].replace(settings["accounts"][0]["client_secret_file"], str(secret)))
    run([BINARY, "check", "--config", file])


def main():
    failed = False
    with tempfile.TemporaryDirectory(prefix="contacts-gateway-packaged-") as folder:
        folder = Path(folder)
        for check in (check_build, check_binary, lambda: check_compose(folder), lambda: check_manifests(folder)):
            try:
                check()
            except Failed as failure:
                print(failure, file=sys.stderr)
                failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main())

"""Checks deploy/ and docker-compose.yml: schemas, cross references, and options and ports against the programs' --help; and the help against docs/."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Tuple

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"
APART = {"kustomization.yaml", "loader.yaml"}
"""Files of the folder that are not part of the system."""

Problems = Iterator[str]


class Program(NamedTuple):
    """What a program says of itself in its --help."""

    options: Dict[str, str]
    """Its long options with the default of each, or the empty string."""
    variables: List[str]

    @classmethod
    def read(cls, file: Path) -> Program:
        text = file.read_text(encoding="utf-8")
        options = {}
        for entry in re.split(r"\n(?= {2,6}-)", text):
            name = re.match(r"\s*(?:-\w, )?--([a-z0-9-]+)", entry)
            default = re.search(r"\[default: ([^\]]+)\]", entry)
            if name:
                options[name[1]] = default[1] if default else ""
        return cls(options, re.findall(r"\[env: (\w+)", text))


class Resource(NamedTuple):
    """One Kubernetes document and the file it is in."""

    file: str
    body: dict

    @property
    def kind(self) -> str:
        return self.body["kind"]

    @property
    def name(self) -> str:
        return self.body["metadata"]["name"]

    @property
    def where(self) -> str:
        return f"deploy/kubernetes/{self.file}: {self.kind} `{self.name}`"


def resources() -> List[Resource]:
    """Every document of the folder but the list of them."""
    files = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")
    return [Resource(path.name, body) for path in files for body in documents(path)]


def documents(path: Path) -> List[dict]:
    return [body for body in yaml.safe_load_all(path.read_text(encoding="utf-8")) if body]


def version() -> str:
    """The version of the workspace, which the images are tagged with."""
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    return re.search(r'^version = "([^"]+)"', manifest, re.MULTILINE)[1]


def every_file_is_readable() -> Problems:
    """YAML and JSON parse, whatever reads them later."""
    for path in sorted((ROOT / "deploy").rglob("*")):
        readers = {".yaml": yaml.safe_load_all, ".yml": yaml.safe_load_all, ".json": json.loads}
        if path.suffix in readers:
            try:
                list(readers[path.suffix](path.read_text(encoding="utf-8")))
            except ValueError as error:
                yield f"{path.relative_to(ROOT)}: {error}"
            except yaml.YAMLError as error:
                yield f"{path.relative_to(ROOT)}: {error}"


def kubernetes_accepts(found: List[Resource]) -> Problems:
    """Every document follows its schema, without a field that no one reads."""
    for resource in found:
        try:
            kubernetes_validate.validate(resource.body, kubernetes_validate.latest_version(), strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            yield f"{resource.where}: {error}"


def kustomization_is_complete() -> Problems:
    """The list names every file, and the images carry the version of the workspace."""
    (listed,) = documents(KUBERNETES / "kustomization.yaml")
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - APART
    if set(listed["resources"]) != files:
        yield f"deploy/kubernetes/kustomization.yaml lists {listed['resources']}, the folder has {sorted(files)}"
    for image in listed["images"]:
        if image["newTag"] != version():
            yield f"deploy/kubernetes/kustomization.yaml: image `{image['name']}` has tag {image['newTag']}, the workspace is {version()}"


def kubectl_renders_it(found: List[Resource]) -> Problems:
    """`kubectl kustomize`, where there is a kubectl, gives every document of the system, each by its schema."""
    if not shutil.which("kubectl"):
        print("no kubectl here: deploy/kubernetes is not rendered")
        return
    rendered = subprocess.run(["kubectl", "kustomize", KUBERNETES], capture_output=True, text=True, check=False)
    if rendered.returncode:
        yield f"deploy/kubernetes: {rendered.stderr.strip()}"
        return
    bodies = [Resource("(rendered)", body) for body in yaml.safe_load_all(rendered.stdout) if body]
    yield from kubernetes_accepts(bodies)
    expected = {(resource.kind, resource.name) for resource in found if resource.file not in APART}
    if {(resource.kind, resource.name) for resource in bodies} != expected:
        yield "deploy/kubernetes: what kubectl renders is not what the files have"


def prometheus_accepts() -> Problems:
    """`promtool`, where there is one, can read the configuration."""
    if not shutil.which("promtool"):
        print("no promtool here: deploy/observability/prometheus.yml is only read as YAML")
        return
    command = ["promtool", "check", "config", ROOT / "deploy/observability/prometheus.yml"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    if checked.returncode:
        yield f"deploy/observability/prometheus.yml: {checked.stderr.strip()}"


def names_lead_somewhere(found: List[Resource]) -> Problems:
    """Selectors, scale targets, claims and stages name what is there."""
    by_kind = {(resource.kind, resource.name): resource for resource in found}
    for resource in found:
        spec = resource.body["spec"]
        if resource.kind == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            if (target["kind"], target["name"]) not in by_kind:
                yield f"{resource.where} scales `{target['name']}`, which is not there"
        if resource.kind == "Service":
            deployment = by_kind.get(("Deployment", resource.name))
            if deployment is None or not selects(spec["selector"], deployment):
                yield f"{resource.where} selects no pod of its Deployment"
            else:
                yield from service_ports(resource, deployment)
        if resource.kind == "Deployment":
            if not selects(spec["selector"]["matchLabels"], resource):
                yield f"{resource.where} does not select its own pods"
            yield from claims(resource, by_kind)


def selects(selector: Dict[str, str], deployment: Resource) -> bool:
    labels = deployment.body["spec"]["template"]["metadata"]["labels"]
    return selector.items() <= labels.items()


def service_ports(service: Resource, deployment: Resource) -> Problems:
    ports = {port["name"]: port["containerPort"] for port in container(deployment)["ports"]}
    for port in service.body["spec"]["ports"]:
        # A headless Service has no port of its own: callers reach the pod's.
        if ports.get(port["targetPort"]) != port["port"]:
            yield f"{service.where} offers port {port['port']}, its pods have {ports}"


def claims(deployment: Resource, by_kind: Dict[Tuple[str, str], Resource]) -> Problems:
    for volume in deployment.body["spec"]["template"]["spec"]["volumes"]:
        claim = volume["persistentVolumeClaim"]["claimName"]
        if ("PersistentVolumeClaim", claim) not in by_kind:
            yield f"{deployment.where} mounts `{claim}`, which is not there"


def container(deployment: Resource) -> dict:
    """The only container of a Deployment."""
    (found,) = deployment.body["spec"]["template"]["spec"]["containers"]
    return found


def pods_fit_their_programs(found: List[Resource], programs: Dict[str, Program]) -> Problems:
    """Options exist, ports are the programs' defaults, probes ask the metrics port, stages are headless Services that show every pod."""
    headless = {resource.name for resource in found if resource.kind == "Service" and shows_every_pod(resource)}
    for deployment in (resource for resource in found if resource.kind == "Deployment"):
        program, pod = programs[deployment.name], container(deployment)
        if pod["image"] != deployment.name:
            yield f"{deployment.where} runs image `{pod['image']}`"
        for argument in pod["args"]:
            name, _, value = argument.lstrip("-").partition("=")
            if name not in program.options:
                yield f"{deployment.where}: `{deployment.name}` has no option `--{name}`"
            if name == "stage":
                yield from stage_exists(deployment.where, value, headless, programs)
        for port in pod["ports"]:
            expected = program.options.get(f"{port['name']}-port")
            if expected != str(port["containerPort"]):
                yield f"{deployment.where}: port `{port['name']}` is {port['containerPort']}, the program's is {expected}"
        for probe in ("readinessProbe", "livenessProbe"):
            if pod[probe]["httpGet"]["port"] != "metrics":
                yield f"{deployment.where}: {probe} does not ask the port of health"
        yield from is_locked_down(deployment, pod)


def shows_every_pod(service: Resource) -> bool:
    """Whether a Service's name resolves to all of its pods, those that are not ready among them."""
    spec = service.body["spec"]
    return spec.get("clusterIP") == "None" and spec.get("publishNotReadyAddresses") is True


def is_locked_down(deployment: Resource, pod: dict) -> Problems:
    security, whole = pod["securityContext"], deployment.body["spec"]["template"]["spec"]["securityContext"]
    if not whole["runAsNonRoot"] or not security["readOnlyRootFilesystem"] or security["allowPrivilegeEscalation"]:
        yield f"{deployment.where} has rights that it does not need"


def stage_exists(where: str, value: str, names: set, programs: Dict[str, Program]) -> Problems:
    """`NAME=dns:///host:port` leads to one of `names`, at the gRPC port of its program."""
    target = re.fullmatch(r"(\w+)=dns:///([\w-]+):(\d+)", value)
    if not target or target[2] not in names:
        yield f"{where}: stage `{value}` leads to none of {sorted(names)}"
        return
    program = programs["consort-" + target[1]]
    if target[3] != program.options["grpc-port"]:
        yield f"{where}: stage `{value}` does not lead to port {program.options['grpc-port']}"


def compose_fits_the_programs(programs: Dict[str, Program]) -> Problems:
    """Variables exist, published ports are the gateway's, stages are services, images carry the version."""
    (composed,) = documents(ROOT / "docker-compose.yml")
    services = composed["services"]
    for name, service in services.items():
        if "build" not in service:
            continue
        where, program = f"docker-compose.yml: `{name}`", programs[f"consort-{name}"]
        if service["image"] != f"consort-{name}:{version()}":
            yield f"{where} is tagged `{service['image']}`, the workspace is {version()}"
        for variable, value in service["environment"].items():
            if variable.startswith("CONSORT_") and variable not in program.variables:
                yield f"{where}: `consort-{name}` does not read `{variable}`"
            if variable == "CONSORT_STAGE":
                for stage in value.split():
                    yield from stage_exists(where, stage, set(services), programs)
        for port in service.get("ports", []):
            inside = port.rpartition(":")[2]
            if inside not in (program.options.get(f"{front}-port") for front in ("http", "grpc", "metrics")):
                yield f"{where} publishes {inside}, which is no port of its program"


def options_are_documented(programs: Dict[str, Program]) -> Problems:
    """Every option of a program stands in a page of docs/."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))
    named = set(re.findall(r"--([a-z0-9-]+)", pages))
    for program, read in sorted(programs.items()):
        for option in sorted(set(read.options) - named - {"help", "version"}):
            yield f"docs: no page tells of `--{option}` of `{program}`"


def main() -> None:
    """Prints every problem; the exit status is 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("help", type=Path, help="a folder with the --help of each program, in a file called after it")
    programs = {file.name: Program.read(file) for file in parser.parse_args().help.iterdir()}
    found = resources()
    problems = [
        *every_file_is_readable(),
        *kubernetes_accepts(found),
        *kustomization_is_complete(),
        *kubectl_renders_it(found),
        *prometheus_accepts(),
        *names_lead_somewhere(found),
        *pods_fit_their_programs(found, programs),
        *compose_fits_the_programs(programs),
        *options_are_documented(programs),
    ]
    print("\n".join(problems) or f"{len(found)} Kubernetes documents and docker-compose.yml fit the programs")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes the schemas beside this file, by which manifests are checked offline: of the kinds that deploy/ uses, strict, without
descriptions. Their source is the modules of Kubernetes, KEDA, cert-manager and the Prometheus Operator of the Go module proxy. Needs go, kubectl (which converts YAML) and python3."""

import json
import pathlib
import subprocess

KUBERNETES = "k8s.io/kubernetes@v1.34.4"
KEDA = "github.com/kedacore/keda/v2@v2.21.0"
CERT_MANAGER = "github.com/cert-manager/cert-manager@v1.19.1"
OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
KINDS = {
    "api__v1": ["Namespace", "Secret", "Service", "ServiceAccount"],
    "apis__apps__v1": ["Deployment"],
    "apis__networking.k8s.io__v1": ["NetworkPolicy"],
    "apis__policy__v1": ["PodDisruptionBudget"],
    "apis__rbac.authorization.k8s.io__v1": ["Role", "RoleBinding"],
}
# Modules with definitions of further kinds: their folder and their files.
DEFINITIONS = [
    (KEDA, "config/crd/bases", ["keda.sh_scaledobjects.yaml", "keda.sh_triggerauthentications.yaml"]),
    (
        OPERATOR,
        "example/prometheus-operator-crd",
        [f"monitoring.coreos.com_{kind}.yaml" for kind in ("servicemonitors", "podmonitors", "prometheusrules")],
    ),
    (CERT_MANAGER, "deploy/crds", ["cert-manager.io_certificates.yaml", "cert-manager.io_issuers.yaml"]),
]
# Keys that a validator does not need.
NOISE = {"description", "default", "externalDocs", "discriminator"}
here = pathlib.Path(__file__).parent


def module(name):
    told = subprocess.run(["go", "mod", "download", "-json", name], check=True, capture_output=True, text=True, cwd="/").stdout
    return pathlib.Path(json.loads(told)["Dir"])


def strict(schema, is_properties=False):
    """The schema without noise. An object with named properties takes no others, and absent is not the same as null."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for key, value in schema.items():
        if is_properties:
            out[key] = strict(value)
        elif key == "$ref":
            out[key] = value.replace("#/components/schemas/", "#/definitions/")
        elif key not in NOISE and not key.startswith("x-kubernetes-"):
            out[key] = strict(value, is_properties=key in ("properties", "definitions"))
    if not is_properties and "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


def references(schema):
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.rsplit("/", 1)[1]
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for one in schema:
            yield from references(one)


def write(name, schema):
    (here / f"{name}.json").write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n")


def main():
    for old in here.glob("*.json"):
        old.unlink()
    specs = module(KUBERNETES) / "api/openapi-spec/v3"
    for file, kinds in KINDS.items():
        schemas = json.loads((specs / f"{file}_openapi.json").read_text())["components"]["schemas"]
        for full, schema in schemas.items():
            for one in schema.get("x-kubernetes-group-version-kind", []):
                if one["kind"] not in kinds or not full.endswith("." + one["kind"]):
                    continue
                needed, left = {}, list(references(schema))
                while left:
                    name = left.pop()
                    if name not in needed:
                        needed[name] = schemas[name]
                        left += references(schemas[name])
                group = one["group"].split(".")[0]
                suffix = f"-{group}-{one['version']}" if group else f"-{one['version']}"
                write(one["kind"].lower() + suffix, strict({**schema, "definitions": needed}))
    for path in [module(name) / folder / file for name, folder, files in DEFINITIONS for file in files]:
        # With --local, kubectl reads the file alone and asks no cluster.
        told = subprocess.run(["kubectl", "patch", "--local", "--type=merge", "-p", "{}", "-f", path, "-o", "json"],
                              check=True, capture_output=True, text=True).stdout
        spec = json.loads(told)["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            write(f"{spec['names']['kind'].lower()}-{spec['group'].split('.')[0]}-{version['name']}", schema)


main()

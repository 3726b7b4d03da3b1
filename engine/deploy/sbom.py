#!/usr/bin/env python3
"""The software bill of materials of the binary: CycloneDX 1.5 JSON on standard output.

    engine/deploy/sbom.py > lictor.cdx.json
    engine/deploy/sbom.py --check             says what is wrong with it; exit status 1 if anything is

It is made of `cargo metadata` and Cargo.lock: every crate that is linked in on Linux, with version, licence, package URL,
checksum and what it needs. C sources that are built and linked in come in crates, too: librdkafka is in rdkafka-sys,
OpenSSL in openssl-src, zstd in zstd-sys, zlib in libz-sys, mimalloc in libmimalloc-sys. What only takes part in the build
is left out. Two runs on one commit give the same bytes.
"""

import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
TARGET = "x86_64-unknown-linux-gnu"
ROOT = "lictor-engine"
# Crates that are linked in; without one of them the list is not whole.
SURELY = ["arrow", "axum", "datafusion", "libmimalloc-sys", "openssl-src", "rdkafka-sys", "zstd-sys"]


def metadata():
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]
    return json.loads(subprocess.run(command, cwd=TOP, check=True, stdout=subprocess.PIPE).stdout)


def checksums():
    """SHA-256 by name and version, of crates that come from a registry."""
    lock = (TOP / "Cargo.lock").read_text()
    entry = re.compile(r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "([0-9a-f]{64})"')
    return {(name, version): checksum for name, version, checksum in entry.findall(lock)}


def is_linked(dependency, packages):
    kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
    # Sources in C are a dependency of the build that compiles them.
    return None in kinds or ("build" in kinds and packages[dependency["pkg"]]["name"].endswith("-src"))


def linked(meta, packages):
    """What each linked crate needs, by package id."""
    nodes = {node["id"]: node for node in meta["resolve"]["nodes"]}
    is_macro = {id for id, package in packages.items() if any("proc-macro" in t["kind"] for t in package["targets"])}
    waiting = [id for id, package in packages.items() if package["name"] == ROOT]
    needs = {}
    while waiting:
        id = waiting.pop()
        if id in needs:
            continue
        deps = [dep["pkg"] for dep in nodes[id]["deps"] if is_linked(dep, packages)]
        needs[id] = [dep for dep in deps if dep not in is_macro]
        waiting.extend(needs[id])
    return needs


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, known):
    of = {
        "type": "application" if package["name"] == ROOT else "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
        # "MIT/Apache-2.0" is how licences were joined once.
        "licenses": [{"expression": (package["license"] or "").replace("/", " OR ")}],
    }
    checksum = known.get((package["name"], package["version"]))
    if checksum:
        of["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        of["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return of


def bill():
    meta, known = metadata(), checksums()
    packages = {package["id"]: package for package in meta["packages"]}
    needs = linked(meta, packages)
    by_purl = sorted(needs, key=lambda id: purl(packages[id]))
    of = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": component(next(p for p in packages.values() if p["name"] == ROOT), known),
            "properties": [{"name": "target", "value": TARGET}],
        },
        "components": [component(packages[id], known) for id in by_purl if packages[id]["name"] != ROOT],
        "dependencies": [
            {"ref": purl(packages[id]), "dependsOn": sorted({purl(packages[need]) for need in needs[id]})}
            for id in by_purl
        ],
    }
    of["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(of, sort_keys=True))}"
    return of


def faults(of):
    components = of["components"]
    names = {component["name"] for component in components}
    for name in SURELY:
        if name not in names:
            yield f"{name} is missing"
    for component in components:
        if not component["licenses"][0]["expression"]:
            yield f"{component['name']} has no licence"
        if "hashes" not in component and not component["name"].startswith("lictor-"):
            yield f"{component['name']} has no checksum"
    refs = [component["bom-ref"] for component in components]
    if len(refs) != len(set(refs)):
        yield "a component is there twice"
    known = {*refs, of["metadata"]["component"]["bom-ref"]}
    for dependency in of["dependencies"]:
        for ref in {dependency["ref"], *dependency["dependsOn"]} - known:
            yield f"{ref} is needed and is no component"


def main():
    of = bill()
    if sys.argv[1:] == ["--check"]:
        found = list(faults(of))
        print("\n".join(found) or f"CycloneDX {of['specVersion']}: {len(of['components'])} components")
        return bool(found)
    json.dump(of, sys.stdout, indent=1)
    print()
    return False


if __name__ == "__main__":
    sys.exit(main())

"""Fails if a dependency of lifesign needs a newer Rust than the manifest promises.

Reads the output of `cargo metadata` on standard input. The argument is the promised version.
"""

import json
import sys

promise = sys.argv[1]
metadata = json.load(sys.stdin)
packages = {package["id"]: package for package in metadata["packages"]}
edges = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}


def number(version):
    return [int(part) for part in version.split(".")]


def shipped(dependency):
    return any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])


todo = [id for id, package in packages.items() if package["name"] == "lifesign"]
seen = set(todo)
for id in todo:
    for dependency in edges[id]:
        if shipped(dependency) and dependency["pkg"] not in seen:
            seen.add(dependency["pkg"])
            todo.append(dependency["pkg"])
newer = [
    f"{package['name']} {package['version']} needs {package['rust_version']}"
    for package in (packages[id] for id in todo)
    if package["rust_version"] and number(package["rust_version"]) > number(promise)
]
print(f"{len(todo)} packages, Rust {promise}", *newer, sep="\n")
sys.exit(bool(newer))

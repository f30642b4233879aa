"""Validates the files of examples/deploy against their products' schemas, if a package contains the schema.

Prints the parsed files as JSON. The argument is the directory. Needs botocore, kubernetes-validate and python-hcl2.
"""

import json
import pathlib
import sys

import botocore.session
import botocore.validate
import hcl2
import kubernetes_validate
import yaml

folder = pathlib.Path(sys.argv[1])
said = {}

for name in ["kubernetes.yaml", "kubernetes-exec.yaml"]:
    said[name] = list(yaml.safe_load_all((folder / name).read_text()))
    for document in said[name]:
        # In strict mode, an unknown field is an error.
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)

# `aws ecs register-task-definition --cli-input-json` makes the same checks before it sends a request.
task = json.loads((folder / "ecs-task.json").read_text())
ecs = botocore.session.get_session().get_service_model("ecs")
shape = ecs.operation_model("RegisterTaskDefinition").input_shape
report = botocore.validate.ParamValidator().validate(task, shape)
if report.has_errors():
    sys.exit(report.generate_report())
said["ecs-task.json"] = task

# No package contains a schema of Nomad's jobs, so only the syntax is checked.
with open(folder / "nomad.hcl") as file:
    said["nomad.hcl"] = hcl2.load(file)

print(json.dumps(said))

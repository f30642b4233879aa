//! The files of `examples/deploy` for platforms that the tests cannot run. The tests validate them
//! against schemas, and check their probes.
//!
//! `cargo test --manifest-path tests/e2e/Cargo.toml --test deploy files`

use std::{process::Command, sync::OnceLock};

use lifesign_e2e::{REPOSITORY, engine::python};
use serde_json::{Value, json};

#[test]
fn kubernetes_restarts_broken_and_routes_to_ready_pods() {
    let http = |path: &str| json!({ "httpGet": { "path": path, "port": "http" } });
    let exec = |flag: &str| json!({ "exec": { "command": ["/app", "healthcheck", flag] } });
    for (file, live, ready, timeout) in [
        (
            "kubernetes.yaml",
            http("/health/live"),
            http("/health/ready"),
            1,
        ),
        // The probe's own timeout of 3 s ends before the kubelet's.
        ("kubernetes-exec.yaml", exec("--live"), exec("--ready"), 4),
    ] {
        let deployment = &files()[file][0];
        assert_eq!(deployment["kind"], "Deployment");
        let pod = &deployment["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        for (probe, asks) in [
            ("startupProbe", &live),
            ("livenessProbe", &live),
            ("readinessProbe", &ready),
        ] {
            let probe = &container[probe];
            for (key, value) in asks.as_object().unwrap() {
                assert_eq!(probe[key], *value, "{file}");
            }
            assert!(
                probe["timeoutSeconds"].as_u64().unwrap_or(1) >= timeout,
                "{file}: {probe}"
            );
        }
        // If READY_DURING_DRAIN is removed, readiness must fail before the port closes, at the end
        // of the drain delay of 5 s.
        let ready = &container["readinessProbe"];
        let number = |key: &str| ready[key].as_u64().unwrap();
        assert!(
            number("periodSeconds") * number("failureThreshold") < 5,
            "{file}: {ready}"
        );
        // Each grace period must be longer than the drain delay of 5 s plus requests of 4 s. A
        // `preStop` hook would count too, but there is none.
        for grace in [pod, &container["livenessProbe"]] {
            assert!(grace["terminationGracePeriodSeconds"].as_u64().unwrap() > 5 + 4);
        }
        assert_eq!(container["lifecycle"], Value::Null, "{file}");
        // With the default policy, the reason why a start failed would only be in the log.
        assert_eq!(
            container["terminationMessagePolicy"],
            "FallbackToLogsOnError"
        );
        // Under a CPU limit, an exec probe takes 0.7 s.
        assert_eq!(container["resources"]["limits"]["cpu"], Value::Null);
        // An update waits long enough to notice a new pod that breaks: a heartbeat's interval of 10
        // s plus 4 s until readiness fails.
        assert!(deployment["spec"]["minReadySeconds"].as_u64().unwrap() > 10 + 4);
        assert_eq!(
            deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"],
            0
        );
        assert_eq!(
            pod["securityContext"],
            json!({
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            })
        );
        assert_eq!(
            container["securityContext"],
            json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            })
        );
    }
}

#[test]
fn service_and_budget_select_the_pods_of_the_deployment() {
    let [deployment, service, budget] = [0, 1, 2].map(|i| &files()["kubernetes.yaml"][i]);
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];

    assert_eq!(service["kind"], "Service");
    assert_eq!(service["spec"]["selector"], *labels);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "http");
    assert_eq!(budget["kind"], "PodDisruptionBudget");
    assert_eq!(budget["spec"]["selector"]["matchLabels"], *labels);
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], *labels);
    // During an outage of a dependency no pod is ready, but nodes can still be drained.
    assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
}

#[test]
fn the_exec_variant_differs_only_in_its_probes() {
    let without_probes = |file: &str| {
        let mut deployment = files()[file][0].clone();
        let containers = deployment
            .pointer_mut("/spec/template/spec/containers/0")
            .unwrap();
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            containers
                .as_object_mut()
                .unwrap()
                .remove(probe)
                .expect(probe);
        }
        deployment
    };

    assert_eq!(
        without_probes("kubernetes.yaml"),
        without_probes("kubernetes-exec.yaml")
    );
}

#[test]
fn nomad_restarts_broken_and_waits_for_ready_tasks() {
    let job = &files()["nomad.hcl"]["job"][0]["\"my-service\""];
    let group = &job["group"][0]["\"my-service\""];
    // There are as many canaries as instances, so no old instance stops before all new ones are
    // healthy.
    assert_eq!(group["update"][0]["canary"], group["count"]);
    let service = &job["group"][0]["\"my-service\""]["service"][0];
    let checks = service["check"].as_array().unwrap();

    let routes = |check: &Value| {
        [
            check["path"].clone(),
            check["check_restart"][0]["limit"].clone(),
        ]
    };
    assert_eq!(
        checks.iter().map(routes).collect::<Vec<_>>(),
        [
            [json!("\"/health/ready\""), Value::Null],
            [json!("\"/health/live\""), json!(3)],
        ]
    );
}

#[test]
fn ecs_runs_the_probe_with_time_to_finish() {
    let container = &files()["ecs-task.json"]["containerDefinitions"][0];

    let check = &container["healthCheck"];
    assert_eq!(check["command"], json!(["CMD", "/app", "healthcheck"]));
    assert!(check["timeout"].as_u64().unwrap() > 3);
    assert!(container["stopTimeout"].as_u64().unwrap() > 5);
    assert_eq!(container["user"], "65532:65532");
    assert_eq!(container["readonlyRootFilesystem"], true);
    assert_eq!(
        container["linuxParameters"]["capabilities"]["drop"],
        json!(["ALL"])
    );
}

/// Returns the parsed files by name. `schemas.py` parses and validates them.
fn files() -> &'static Value {
    static FILES: OnceLock<Value> = OnceLock::new();
    FILES.get_or_init(|| {
        let packages = [
            "botocore==1.44.8",
            "kubernetes-validate==1.37.0",
            "python-hcl2==8.1.4",
        ];
        let python = python("schemas", &packages);
        let mut check = Command::new(python);
        check.arg(format!("{REPOSITORY}/tests/e2e/schemas.py"));
        check.arg(format!("{REPOSITORY}/examples/deploy"));
        let output = check.output().expect("python");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

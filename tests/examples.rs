//! The examples that are workspaces of their own, as the services of users are, pass their tests.

use std::{path::Path, process::Command};

#[test]
fn the_service_with_tls_passes_its_tests() {
    passes_its_tests("tls");
}

#[test]
fn the_service_with_vergen_passes_its_tests() {
    passes_its_tests("vergen");
}

fn passes_its_tests(example: &str) {
    let manifest = format!(
        "{}/examples/{example}/Cargo.toml",
        env!("CARGO_MANIFEST_DIR")
    );
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("target/tmp");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["test", "--locked", "--manifest-path", &manifest])
        .arg("--target-dir")
        .arg(target);
    for name in ["VERSION", "GIT_COMMIT", "BUILD_DATE", "SOURCE_DATE_EPOCH"] {
        cargo.env_remove(name);
    }

    let output = cargo.output().expect("cargo runs");

    let [said, printed] =
        [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{said}{printed}");
    assert!(printed.contains("test result: ok. "), "{printed}");
}

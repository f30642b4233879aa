//! Environment variables that a person, a container build or vergen sets for a build.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use crate::service::{Service, facts, git_facts, rustc_version, stderr};

const ARGUMENTS: [&str; 12] = [
    "LIFESIGN_VERSION",
    "LIFESIGN_GIT_COMMIT",
    "LIFESIGN_GIT_DESCRIBE",
    "LIFESIGN_GIT_COMMIT_DATE",
    "LIFESIGN_GIT_DIRTY",
    "LIFESIGN_BUILD_DATE",
    "LIFESIGN_RUSTC",
    "LIFESIGN_TARGET",
    "LIFESIGN_PROFILE",
    "VERSION",
    "GIT_COMMIT",
    "BUILD_DATE",
];

#[test]
fn arguments_take_precedence_in_the_documented_order() {
    let mut service = Service::committed();
    let mut before = service.assert_build_follows_git();
    assert_eq!(before["version"], "1.2.3");
    for layer in [
        &[("SOURCE_DATE_EPOCH", "build_date")][..],
        &[
            ("VERSION", "version"),
            ("GIT_COMMIT", "commit"),
            ("BUILD_DATE", "build_date"),
        ],
        &[
            ("LIFESIGN_VERSION", "version"),
            ("LIFESIGN_GIT_COMMIT", "commit"),
            ("LIFESIGN_GIT_DESCRIBE", "describe"),
            ("LIFESIGN_GIT_COMMIT_DATE", "commit_date"),
            ("LIFESIGN_GIT_DIRTY", "dirty"),
            ("LIFESIGN_BUILD_DATE", "build_date"),
            ("LIFESIGN_RUSTC", "rustc"),
            ("LIFESIGN_TARGET", "target"),
            ("LIFESIGN_PROFILE", "profile"),
        ],
    ] {
        let mut expected = before.clone();
        for &(variable, fact) in layer {
            let (given, known) = match variable {
                "SOURCE_DATE_EPOCH" => ("1795473060", "2026-11-23T22:31:00Z"),
                "LIFESIGN_GIT_DIRTY" => ("1", "true"),
                _ => (variable, variable),
            };
            service.set(variable, given);
            expected.insert(fact.into(), known.into());
            assert_ne!(before.get(fact), expected.get(fact));
        }
        if expected["commit"] == "GIT_COMMIT" {
            expected.retain(|fact, _| !["describe", "commit_date", "dirty"].contains(&&**fact));
        }
        before = service.build();
        assert_eq!(before, expected);
    }
}

#[test]
fn arguments_need_no_build_script() {
    let mut service = Service::committed();
    service.remove("build.rs");
    assert_eq!(
        service.build(),
        facts(&[("name", "service"), ("version", "1.2.3")])
    );
    for value in ["first", "second"] {
        for name in ["VERSION", "GIT_COMMIT", "BUILD_DATE"] {
            service.set(name, format!("{value} {name}"));
        }
        let expected = [
            ("name", "service"),
            ("version", &format!("{value} VERSION")),
            ("commit", &format!("{value} GIT_COMMIT")),
            ("build_date", &format!("{value} BUILD_DATE")),
        ];
        assert_eq!(service.build(), facts(&expected));
    }
    service.set("LIFESIGN_VERSION", "third");
    assert_eq!(service.build()["version"], "third");
}

#[test]
fn git_counts_again_when_an_argument_is_removed() {
    let mut service = Service::committed();
    service.set("GIT_COMMIT", "given");
    assert_eq!(service.build()["commit"], "given");
    service.unset("GIT_COMMIT");
    service.assert_build_follows_git();
}

#[test]
fn empty_arguments_are_unset() {
    let mut service = Service::committed();
    let before = service.assert_build_follows_git();
    for name in ARGUMENTS {
        service.set(name, "");
    }
    service.set("VERGEN_GIT_SHA", "");
    service.set("SOURCE_DATE_EPOCH", "");
    assert_eq!(service.build(), before);
    for name in ARGUMENTS {
        service.set(name, " \t\n");
    }
    assert_eq!(service.build(), before);
}

#[test]
fn facts_of_another_commit_are_left_out() {
    let mut service = Service::committed();
    let before = service.assert_build_follows_git();
    let abbreviated = &before["commit"][..9];
    service.set("GIT_COMMIT", abbreviated);
    let mut expected = before.clone();
    expected.insert("commit".into(), abbreviated.into());
    assert_eq!(service.build(), expected);

    service.set("GIT_COMMIT", "3f2a91c0d");
    assert_eq!(
        git_facts(&service.build()),
        facts(&[("commit", "3f2a91c0d")])
    );

    service.set("LIFESIGN_GIT_DIRTY", "true");
    assert_eq!(
        git_facts(&service.build()),
        facts(&[("commit", "3f2a91c0d"), ("dirty", "true")])
    );
}

#[test]
fn an_invalid_source_date_is_reported_and_ignored() {
    let mut service = Service::committed();
    for value in [
        OsString::from("yesterday"),
        OsString::from("-1"),
        OsString::from("253402300800"),
        OsString::from_vec(vec![b'1', 0xff]),
    ] {
        service.set("SOURCE_DATE_EPOCH", &value);
        assert_eq!(service.emit().get("build_date"), None, "{value:?}");
        let warning = "SOURCE_DATE_EPOCH is not a number of seconds since 1970 and is ignored";
        assert_eq!(service.warnings(), [warning]);
    }
    let output = stderr(&service.cargo(&["build"]));
    assert!(output.contains("SOURCE_DATE_EPOCH"), "{output}");
    service.set("SOURCE_DATE_EPOCH", "0");
    assert_eq!(service.build()["build_date"], "1970-01-01T00:00:00Z");
}

#[test]
fn an_argument_ends_at_its_first_control_character() {
    let mut service = Service::committed();
    for name in ARGUMENTS {
        service.set(name, "1.0\ncargo:rustc-env=LIFESIGN_EMITTED_RUSTC=injected");
    }
    service.set("LIFESIGN_RUSTC", "\u{1b}[31m");
    let facts = service.build();
    assert_eq!(facts["version"], "1.0");
    assert_eq!(facts["commit"], "1.0");
    assert_eq!(facts["rustc"], rustc_version("release: "));
    assert_eq!(facts.get("dirty"), None);
}

#[test]
fn variables_of_vergen_come_after_the_arguments() {
    let mut service = Service::committed();
    let before = service.assert_build_follows_git();
    let build_script = |emit: &str, sha: &str, date: &str| {
        format!(
            r#"fn main() {{
                println!("cargo:rerun-if-changed=build.rs");
                println!("cargo:rustc-env=VERGEN_GIT_SHA={sha}");
                println!("cargo:rustc-env=VERGEN_GIT_DESCRIBE=v7-vergen");
                println!("cargo:rustc-env=VERGEN_GIT_COMMIT_DATE=2026-11-22");
                println!("cargo:rustc-env=VERGEN_GIT_COMMIT_TIMESTAMP={date}");
                println!("cargo:rustc-env=VERGEN_GIT_DIRTY=true");
                println!("cargo:rustc-env=VERGEN_BUILD_DATE=2026-11-23");
                println!("cargo:rustc-env=VERGEN_RUSTC_SEMVER=1.2.3");
                println!("cargo:rustc-env=VERGEN_CARGO_TARGET_TRIPLE=vergen-target");
                {emit}
            }}"#
        )
    };
    let of_vergen = [
        ("name", "service"),
        ("version", "1.2.3"),
        ("commit", "7e57ed"),
        ("describe", "v7-vergen"),
        ("commit_date", "2026-11-22T10:11:12Z"),
        ("build_date", "2026-11-23"),
        ("dirty", "true"),
        ("rustc", "1.2.3"),
        ("target", "vergen-target"),
    ];

    service.write(
        "build.rs",
        &build_script("", "7e57ed", "2026-11-22T10:11:12Z"),
    );
    assert_eq!(service.build(), facts(&of_vergen));

    let emit = "lifesign::build::emit();";
    service.write(
        "build.rs",
        &build_script(emit, "7e57ed", "2026-11-22T10:11:12Z"),
    );
    let mut with_profile = facts(&of_vergen);
    with_profile.insert("profile".into(), "debug".into());
    assert_eq!(service.build(), with_profile);

    let nothing = "VERGEN_IDEMPOTENT_OUTPUT";
    service.write("build.rs", &build_script(emit, nothing, nothing));
    let facts_without_sha = service.build();
    assert_eq!(facts_without_sha["commit"], before["commit"]);
    assert_eq!(facts_without_sha["commit_date"], "2026-11-22");

    service.set("GIT_COMMIT", "given");
    assert_eq!(service.build()["commit"], "given");

    service.write("build.rs", &build_script(emit, "7e57ed", nothing));
    let expected = facts(&[("commit", "given")]);
    assert_eq!(git_facts(&service.build()), expected);
}

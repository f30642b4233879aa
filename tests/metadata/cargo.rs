//! Builds the service with Cargo, and checks what the service prints.

use std::{fs::File, time::UNIX_EPOCH};

use crate::service::{MAIN, Service, link, rustc_version, stderr};

#[test]
fn a_build_follows_the_repository() {
    let service = Service::committed();
    assert_eq!(service.assert_build_follows_git()["dirty"], "false");
    service.git("next");
    service.assert_build_follows_git();
    service.git("pack-refs --all");
    service.git("tag v1");
    assert_eq!(service.assert_build_follows_git()["describe"], "v1");
    let before = service.edit("src/main.rs");
    assert_eq!(service.assert_build_follows_git()["dirty"], "true");
    service.write("src/main.rs", &before);
    assert_eq!(service.assert_build_follows_git()["dirty"], "false");
}

#[test]
fn a_new_commit_compiles_the_last_crate_alone() {
    let service = Service::committed();
    service.build();
    service.git("next");
    let output = stderr(&service.cargo(&["build"]));
    let lines = output.lines().filter(|line| line.contains("Compiling "));
    let compiled: Vec<_> = lines.collect();
    assert_eq!(compiled.len(), 1, "{output}");
    assert!(compiled[0].contains("Compiling service "), "{output}");
}

#[test]
fn reading_the_repository_builds_nothing() {
    let service = Service::new("service");
    service.git("init");
    // The files get an old modification time, because git refreshes the index once if a file is as
    // recent as the index.
    for path in ["Cargo.toml", "build.rs", "src/main.rs"] {
        let file = File::options().write(true).open(service.package.join(path));
        file.unwrap().set_modified(UNIX_EPOCH).unwrap();
    }
    service.commit_all();
    service.assert_build_follows_git();
    service.git("status");
    service.git("log");
    service.git("diff");
    service.git("fetch --all");
    service.assert_builds_nothing();
}

#[test]
fn a_directory_with_an_unusual_name_is_no_exception() {
    let service = Service::new("größe 1/a \"service\"");
    service.git("init");
    service.write("größe \"1\"", "quoted by git\n");
    service.commit_all();
    service.assert_build_follows_git();
    service.git("next");
    service.assert_build_follows_git();
    service.edit("größe \"1\"");
    assert_eq!(service.assert_build_follows_git()["dirty"], "true");
}

#[test]
fn a_directory_with_a_line_break_injects_nothing() {
    let service = Service::new("a\ncargo:rustc-env=LIFESIGN_VERSION=injected");
    service.git("init");
    service.commit_all();
    service.cargo(&["build"]);
    assert_eq!(service.run("debug", "service")["version"], "1.2.3");
}

#[test]
fn a_linked_directory_is_its_target() {
    let mut service = Service::committed_in_subdirectory();
    let linked = service.directory.join("link");
    link(&service.package, &linked);
    service.package = linked;
    service.assert_build_follows_git();
    service.git("next");
    service.assert_build_follows_git();
    service.without_git();
    service.assert_only_commit();
}

#[test]
fn two_binaries_of_one_package_have_two_names() {
    let service = Service::new("service");
    service.write("src/bin/worker.rs", MAIN);
    assert_eq!(service.build()["name"], "service");
    assert_eq!(service.run("debug", "worker")["name"], "worker");
}

#[test]
fn an_old_rust_version_is_no_exception() {
    let service = Service::new("service");
    let manifest = service.read("Cargo.toml");
    let old = "edition = \"2018\"\nrust-version = \"1.56\"";
    service.write("Cargo.toml", &manifest.replace("edition = \"2024\"", old));
    service.git("init");
    service.commit_all();
    service.assert_build_follows_git();
}

#[test]
fn compiler_target_and_profile_are_those_of_the_build() {
    let service = Service::new("service");
    let facts = service.build();
    assert_eq!(facts["rustc"], rustc_version("release: "));
    assert_eq!(facts["target"], rustc_version("host: "));
    assert_eq!(facts["profile"], "debug");
    service.cargo(&["build", "--release"]);
    assert_eq!(service.run("release", "service")["profile"], "release");
}

//! Packages inside another project's repository, and builds with another package's environment
//! variables.

use crate::service::{Facts, Service, facts, git_facts};

const COMMIT: &str = "3f2a91c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6";

#[test]
fn an_untracked_package_is_not_its_parents() {
    let service = Service::in_foreign_repository();
    service.assert_no_git_facts();
    service.git_in("parent", "next");
    service.assert_no_git_facts();

    service.git("add .");
    service.git("commit -m adopted");
    service.assert_facts_of_git();
}

#[test]
fn an_ignored_package_is_not_its_parents() {
    let service = Service::in_foreign_repository();
    service.write("../.gitignore", "/service\n");
    service.git_in("parent", "add .gitignore");
    service.git_in("parent", "commit -m ignored");
    service.assert_no_git_facts();
}

#[test]
fn an_untracked_package_is_not_its_parents_without_git() {
    let mut service = Service::in_foreign_repository();
    service.without_git();
    service.assert_no_git_facts();
}

/// Without git, the build script searches the index for the package's path. This index has only
/// another package's path that ends with the same text.
#[test]
fn a_tracked_namesake_is_another_package_without_git() {
    let mut service = Service::in_foreign_repository();
    service.write("../other/service/Cargo.toml", "");
    service.git_in("parent", "add other");
    service.git_in("parent", "commit -m other");
    service.without_git();
    service.assert_no_git_facts();
}

#[test]
fn a_distrusted_parent_that_does_not_track_is_ignored() {
    let service = Service::in_foreign_repository();
    if !service.give_away("..") {
        return println!("skipped: only root can change owners");
    }
    service.assert_no_git_facts();
}

#[test]
fn a_file_named_like_a_revision_changes_nothing() {
    let service = Service::committed();
    service.write("HEAD", "a head of cabbage\n");
    service.assert_follows(&["add HEAD", "commit -m head"]);
}

#[test]
fn an_unfinished_repository_is_ignored() {
    let service = Service::committed_in_subdirectory();
    std::fs::create_dir(service.package.join(".git")).unwrap();
    service.assert_follows(&["next"]);
}

#[test]
fn variables_of_a_git_hook_are_ignored() {
    let mut service = Service::committed();
    service.git_in("", "init other");
    service.git_in("other", "commit --allow-empty -m other");
    let other = service.directory.join("other");
    service.set("GIT_DIR", other.join(".git"));
    service.set("GIT_WORK_TREE", &other);
    service.set("GIT_INDEX_FILE", other.join(".git/index"));
    service.set("GIT_COMMON_DIR", other.join(".git"));
    service.set("GIT_OBJECT_DIRECTORY", other.join(".git/objects"));
    service.set("GIT_CEILING_DIRECTORIES", service.package.clone());
    service.set("GIT_PREFIX", "other/");
    service.set("GIT_NAMESPACE", "other");
    service.set("GIT_LITERAL_PATHSPECS", "1");
    service.assert_facts_of_git();
    service.edit("src/main.rs");
    service.assert_facts_of_git();
}

/// `cargo run` passes the variables of its own package to the program that it starts.
#[test]
fn facts_of_an_outer_cargo_run_are_ignored() {
    let outer = Service::committed();
    outer.assert_build_follows_git();
    let inner = Service::at(outer.directory.join("inner"), "");
    let build = [
        "run",
        "--",
        env!("CARGO"),
        "build",
        "--manifest-path",
        "../inner/Cargo.toml",
        "--target-dir",
        inner.target().to_str().unwrap(),
    ];

    outer.cargo(&build);
    assert_eq!(git_facts(&inner.run("debug", "service")), Facts::new());

    inner.remove("build.rs");
    outer.cargo(&build);
    assert_eq!(git_facts(&inner.run("debug", "service")), Facts::new());
}

#[test]
fn a_packaged_crate_has_its_own_commit() {
    let service = Service::in_foreign_repository();
    for (git, expected) in [
        (
            format!("{{\n    \"sha1\": \"{COMMIT}\"\n  }}"),
            [("commit", COMMIT), ("dirty", "false")],
        ),
        (
            format!("{{\n    \"sha1\": \"{COMMIT}\",\n    \"dirty\": true\n  }}"),
            [("commit", COMMIT), ("dirty", "true")],
        ),
    ] {
        let record = format!("{{\n  \"git\": {git},\n  \"path_in_vcs\": \"\"\n}}");
        service.write(".cargo_vcs_info.json", &record);
        assert_eq!(git_facts(&service.emit()), facts(&expected));
    }
    service.write(".cargo_vcs_info.json", "{\"git\":{\"sha1\":\"unknown\"}}");
    service.assert_no_git_facts();
}

#[test]
fn a_packaged_crate_in_a_foreign_commit_has_its_own_commit() {
    let service = Service::in_foreign_repository();
    let record = format!("{{\n  \"git\": {{\n    \"sha1\": \"{COMMIT}\"\n  }}\n}}");
    service.write(".cargo_vcs_info.json", &record);
    service.commit_all();
    let expected = facts(&[("commit", COMMIT), ("dirty", "false")]);
    assert_eq!(git_facts(&service.emit()), expected);

    service.git("next");
    assert!(service.is_fresh(), "the other repository is not watched");
}

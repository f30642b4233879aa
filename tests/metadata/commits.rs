//! The facts follow new commits, branches and tags.

use std::fs;

use crate::service::Service;

#[test]
fn a_new_commit_is_noticed() {
    let service = Service::committed();
    service.assert_follows(&["next", "commit --amend --allow-empty -m amended"]);
}

#[test]
fn a_new_commit_is_noticed_after_gc() {
    let service = Service::committed();
    service.assert_follows(&["gc", "next", "pack-refs --all", "next"]);
}

#[test]
fn a_new_commit_is_noticed_on_a_packed_branch_with_slashes() {
    let service = Service::committed();
    service.git("checkout -b team/feature/one");
    service.assert_follows(&["pack-refs --all", "next"]);
}

/// Some implementations of git write `packed-refs` and no file for the branch.
#[test]
fn a_new_commit_is_noticed_in_packed_refs() {
    let service = Service::committed();
    let first = service.git("rev-parse HEAD");
    service.git("next");
    let second = service.git("rev-parse HEAD");
    service.git("pack-refs --all");
    service.assert_facts_of_git();
    let packed = service.read(".git/packed-refs");
    service.write(".git/packed-refs", &packed.replace(&second, &first));
    assert_eq!(service.assert_facts_of_git()["commit"], first);
}

#[test]
fn a_new_commit_is_noticed_on_an_alias_of_a_branch() {
    let service = Service::committed();
    service.git("symbolic-ref refs/heads/alias refs/heads/main");
    service.git("checkout alias");
    let old = service.git("commit-tree -m old HEAD^{tree}");
    service.git(&format!("update-ref --create-reflog HEAD {old}"));
    service.assert_follows(&["next"]);
}

#[test]
fn a_new_commit_is_noticed_when_detached() {
    let service = Service::committed();
    service.git("next");
    service.assert_follows(&["checkout --detach HEAD~1", "next"]);
}

#[test]
fn another_branch_is_noticed() {
    let service = Service::committed();
    service.git("branch other");
    service.git("next");
    service.assert_follows(&["symbolic-ref HEAD refs/heads/other", "checkout main"]);
}

#[test]
fn a_new_commit_is_noticed_in_a_linked_work_tree() {
    let mut service = Service::committed();
    service.git("worktree add ../linked");
    service.package = service.directory.join("linked");
    service.assert_follows(&["next", "pack-refs --all", "next"]);
}

#[test]
fn a_new_commit_is_noticed_with_reftables() {
    let mut service = Service::new("service");
    if !service.try_git("init --ref-format=reftable") {
        return println!("skipped: this git has no reftables");
    }
    service.commit_all();
    service.assert_follows(&["next", "pack-refs --all", "next"]);
    service.git("worktree add ../linked");
    service.package = service.directory.join("linked");
    service.assert_follows(&["next", "checkout --detach", "next"]);
}

#[test]
fn a_new_commit_is_noticed_with_sha256() {
    let mut service = Service::new("service");
    service.git("init --object-format=sha256");
    service.commit_all();
    service.assert_follows(&["next"]);
    service.without_git();
    service.assert_only_commit();
}

#[test]
fn a_new_commit_is_noticed_in_a_subdirectory() {
    let service = Service::committed_in_subdirectory();
    service.assert_follows(&["next"]);
}

#[test]
fn a_new_commit_is_noticed_in_a_submodule() {
    let mut service = Service::new("origin");
    service.git("init");
    service.commit_all();
    service.git_in("", "init parent");
    service.git_in("parent", "submodule add ../origin service");
    service.git_in("parent", "commit -m parent");
    service.package = service.directory.join("parent/service");
    service.assert_follows(&["next"]);
    service.without_git();
    service.assert_only_commit();
}

#[test]
fn a_shallow_clone_has_its_commit_and_later_its_tag() {
    let mut service = Service::committed();
    service.git("tag v1");
    service.git("next");
    service.git("next");
    let origin = format!("file://{}", service.package.display());
    service.git_in("", &format!("clone --depth 1 {origin} clone"));
    service.package = service.directory.join("clone");
    service.git("fetch --depth 1 origin tag v1");
    let facts = service.assert_facts_of_git();
    assert!(facts["commit"].starts_with(&facts["describe"]));

    service.git("fetch --unshallow");
    let facts = service.assert_facts_of_git();
    assert!(facts["describe"].starts_with("v1-2-g"));
}

#[test]
fn tags_come_and_go() {
    let service = Service::committed();
    // Some copies of a repository lack its empty directories.
    fs::remove_dir(service.package.join(".git/refs/tags")).unwrap();
    service.assert_facts_of_git();
    service.git("tag v1");
    assert_eq!(service.assert_facts_of_git()["describe"], "v1");
    service.git("tag --annotate --message=two v2");
    assert_eq!(service.assert_facts_of_git()["describe"], "v2");
    service.git("pack-refs --all");
    assert_eq!(service.assert_facts_of_git()["describe"], "v2");
    service.git("tag --delete v2");
    assert_eq!(service.assert_facts_of_git()["describe"], "v1");
    service.git("next");
    assert!(service.assert_facts_of_git()["describe"].starts_with("v1-1-g"));
}

#[test]
fn the_first_commit_is_noticed() {
    let service = Service::new("service");
    service.git("init");
    service.assert_no_git_facts();
    service.git("add .");
    service.assert_no_git_facts();
    service.git("commit -m first");
    service.assert_facts_of_git();
}

#[test]
fn a_later_repository_is_found_at_the_next_edit() {
    for path in ["src/main.rs", "Cargo.toml"] {
        let service = Service::new("service");
        service.assert_no_git_facts();
        service.git("init");
        service.commit_all();
        service.edit(path);
        assert_eq!(service.assert_facts_of_git()["dirty"], "true", "{path}");
    }
}

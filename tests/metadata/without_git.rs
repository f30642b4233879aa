//! There is no git program, or it refuses to read the repository.

use crate::service::{Service, facts, git_facts};

#[test]
fn the_commit_is_known_without_git() {
    let mut service = Service::committed();
    service.without_git();
    service.assert_only_commit();
    service.git("next");
    service.assert_only_commit();
    service.git("pack-refs --all");
    service.assert_only_commit();
    service.git("checkout --detach");
    service.git("next");
    service.assert_only_commit();

    service.git("worktree add -b linked ../linked");
    service.package = service.directory.join("linked");
    service.assert_only_commit();
    service.git("next");
    service.assert_only_commit();
}

#[test]
fn the_commit_is_known_without_git_in_a_subdirectory() {
    let mut service = Service::committed_in_subdirectory();
    service.without_git();
    service.assert_only_commit();
    // An intent to add makes an index of version 3.
    service.write("AUTHORS", "later\n");
    service.git("add --intent-to-add AUTHORS");
    service.assert_only_commit();
}

#[test]
fn reftables_are_unknown_without_git() {
    let mut service = Service::new("service");
    if !service.try_git("init --ref-format=reftable") {
        return println!("skipped: this git has no reftables");
    }
    service.commit_all();
    service.without_git();
    service.assert_no_git_facts();
}

#[test]
fn the_commit_is_known_if_git_distrusts_the_owner() {
    let service = Service::committed();
    let commit = service.git("rev-parse HEAD");
    if !service.give_away(".") {
        return println!("skipped: only root can change owners");
    }
    assert!(!service.try_git("rev-parse HEAD"), "git should refuse");
    assert_eq!(git_facts(&service.emit()), facts(&[("commit", &commit)]));
}

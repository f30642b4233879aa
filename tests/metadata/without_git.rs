//! Builds without a git program, or with one that refuses to read the repository.

use crate::service::{Service, command, facts, git_facts, stderr};

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
    // `git add --intent-to-add` changes the index to version 3.
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
    let [warning] = &*service.warnings() else {
        panic!("{:?}", service.warnings());
    };
    let start = "git cannot read the repository, so only its commit is known: fatal: ";
    assert!(warning.starts_with(start), "{warning}");
    let cure = "git config --global --add safe.directory";
    let cure = format!("{cure} {}", service.package.display());
    assert!(warning.ends_with(&cure), "{warning}");
}

#[test]
fn nothing_is_reported_if_git_can_read_the_repository() {
    let mut service = Service::new("service");
    service.git("init");
    service.emit();
    assert_eq!(service.warnings(), [""; 0]);
    service.commit_all();
    service.emit();
    assert_eq!(service.warnings(), [""; 0]);
    service.without_git();
    service.emit();
    assert_eq!(service.warnings(), [""; 0]);
}

/// Some container builds exclude `.git/index`, whose frequent changes would invalidate the build
/// cache.
#[test]
fn an_index_is_needed_for_dirty_alone() {
    let mut service = Service::committed();
    let mut expected = git_facts(&service.assert_facts_of_git());
    service.remove(".git/index");
    expected.remove("dirty");
    assert_eq!(git_facts(&service.emit()), expected);

    service.git("read-tree HEAD");
    service.assert_facts_of_git();

    service.remove(".git/index");
    service.without_git();
    service.assert_only_commit();
}

#[test]
fn every_index_will_do_without_git_at_the_root() {
    for command in ["--index-version 4", "--split-index"] {
        let mut service = Service::committed();
        service.git(&format!("update-index {command}"));
        service.without_git();
        service.assert_only_commit();
    }
}

/// The build script reads only a complete index of version 2 or 3.
#[test]
fn some_indexes_are_unknown_without_git_in_a_subdirectory() {
    for command in ["--index-version 4", "--split-index"] {
        let mut service = Service::committed_in_subdirectory();
        service.git(&format!("update-index {command}"));
        service.assert_facts_of_git();
        service.without_git();
        service.assert_no_git_facts();
    }
}

#[test]
fn make_reports_that_git_distrusts_the_owner() {
    let service = Service::new("service");
    service.write("Makefile", include_str!("../../Makefile"));
    let make = || {
        let mut make = command("make");
        make.args(["--dry-run", "image"]);
        make.current_dir(&service.package).output()
    };
    let Ok(output) = make() else {
        return println!("skipped: there is no make");
    };
    let message = stderr(&output);
    assert!(message.contains("not a git repository"), "{message}");
    service.git("init");
    service.commit_all();
    assert_eq!(stderr(&make().unwrap()), "");
    if !service.give_away(".") {
        return println!("skipped: only root can change owners");
    }

    let message = stderr(&make().unwrap());

    assert!(
        message.contains("no tag, commit or date from git: fatal: "),
        "{message}"
    );
    let cure = "git config --global --add safe.directory";
    let cure = format!("{cure} {}", service.package.display());
    assert!(message.trim_end().ends_with(&cure), "{message}");
}

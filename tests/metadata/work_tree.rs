//! Files change, and the work tree becomes dirty or clean.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
};

use crate::service::{BUILD_SCRIPT, Service, link};

#[test]
fn an_edited_source_is_dirty_until_git_restores_it() {
    let service = Service::committed();
    assert_eq!(service.assert_facts_of_git()["dirty"], "false");
    service.edit("src/main.rs");
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
    service.git("checkout .");
    assert_eq!(service.assert_facts_of_git()["dirty"], "false");
    service.edit("build.rs");
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
    service.git("commit --all -m second");
    assert_eq!(service.assert_facts_of_git()["dirty"], "false");
}

#[test]
fn an_edit_is_dirty_until_it_is_undone_by_hand() {
    let service = Service::committed();
    service.assert_facts_of_git();
    let one = service.edit("src/main.rs");
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
    let two = service.edit("Cargo.toml");
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
    service.write("src/main.rs", &one);
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
    service.write("Cargo.toml", &two);
    assert_eq!(service.assert_facts_of_git()["dirty"], "false");
}

#[test]
fn an_edit_anywhere_in_the_repository_is_dirty() {
    let service = Service::new("repository/api");
    service.write("../library/src/lib.rs", "pub fn f() {}\n");
    service.git_in("repository", "init");
    service.commit_all();
    service.assert_facts_of_git();
    service.edit("../library/src/lib.rs");
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
}

#[test]
fn an_edit_in_a_submodule_is_dirty() {
    let service = Service::committed();
    service.git_in("", "init library");
    service.write("../library/lib.rs", "pub fn f() {}\n");
    service.git_in("library", "add .");
    service.git_in("library", "commit -m library");
    service.git("submodule add ../library");
    service.git("commit -m submodule");
    service.assert_facts_of_git();
    let before = service.edit("library/lib.rs");
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
    service.write("library/lib.rs", &before);
    assert_eq!(service.assert_facts_of_git()["dirty"], "false");
}

#[test]
fn a_deleted_file_is_dirty() {
    let service = Service::new("service");
    service.write("notes", "to be deleted\n");
    service.git("init");
    service.commit_all();
    service.assert_facts_of_git();
    service.remove("notes");
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
    service.git("checkout notes");
    assert_eq!(service.assert_facts_of_git()["dirty"], "false");
}

#[test]
fn an_edit_after_a_deleted_file_is_noticed_when_undone() {
    let service = Service::new("service");
    service.write("AUTHORS", "before src in git's list\n");
    service.git("init");
    service.commit_all();
    service.remove("AUTHORS");
    let before = service.edit("src/main.rs");
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
    service.write("AUTHORS", "before src in git's list\n");
    service.write("src/main.rs", &before);
    assert_eq!(service.assert_facts_of_git()["dirty"], "false");
}

#[test]
fn a_new_file_is_dirty_once_it_is_added() {
    let service = Service::committed();
    service.assert_facts_of_git();
    service.write("notes", "not yet added\n");
    assert_eq!(service.assert_facts_of_git()["dirty"], "false");
    service.git("add notes");
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
    service.git("reset");
    assert_eq!(service.assert_facts_of_git()["dirty"], "false");
}

#[test]
fn unusual_file_names_are_watched_or_skipped() {
    let service = Service::new("service");
    let latin1 = OsString::from_vec(b"gr\xf6\xdfe".to_vec());
    fs::write(service.package.join(latin1), "not UTF-8\n").unwrap();
    service.write("line\nbreak", "a control character\n");
    service.write("größe \"1\"", "quoted by git\n");
    link(
        &service.directory,
        &service.package.join("link to a changing directory"),
    );
    service.git("init");
    service.commit_all();
    service.assert_facts_of_git();
    service.write("../unrelated", "in the directory that the link leads to\n");
    assert!(service.is_fresh());
    service.edit("größe \"1\"");
    assert_eq!(service.assert_facts_of_git()["dirty"], "true");
}

#[test]
fn a_dirty_tree_is_built_once_for_any_number_of_edits() {
    let service = Service::new("repository/service");
    service.write("../README", "first\n");
    service.write("../main.tf", "first\n");
    service.git_in("repository", "init");
    service.commit_all();
    service.edit("../README");
    service.assert_facts_of_git();
    service.edit("../main.tf");
    assert!(service.is_fresh());
    service.git("next");
    service.assert_facts_of_git();
    service.edit("../main.tf");
    assert!(service.is_fresh());
}

#[test]
fn the_repository_is_not_modified() {
    let service = Service::committed();
    let ran = service.directory.join("monitor-ran");
    let monitor = service.directory.join("monitor");
    fs::write(&monitor, format!("#!/bin/sh\n: > '{}'\n", ran.display())).unwrap();
    fs::set_permissions(&monitor, Permissions::from_mode(0o755)).unwrap();
    service.git(&format!("config core.fsmonitor {}", monitor.display()));
    // The content is the same, but the modification time is new. Git would refresh the index if it
    // were allowed to.
    service.write("build.rs", BUILD_SCRIPT);
    let index = fs::read(service.package.join(".git/index")).unwrap();

    service.emit();

    assert_eq!(fs::read(service.package.join(".git/index")).unwrap(), index);
    assert!(!ran.exists(), "the repository's monitor was started");
}

#[test]
fn settings_of_the_repository_do_not_change_the_facts() {
    let service = Service::committed();
    service.git("tag v1");
    let before = service.assert_facts_of_git();
    for setting in [
        "color.ui always",
        "core.quotePath false",
        "feature.manyFiles true",
        "index.skipHash true",
        "log.showSignature true",
        "log.date relative",
        "pager.describe cat",
        "status.showUntrackedFiles all",
        "status.branch true",
        "status.short true",
        "status.showStash true",
    ] {
        service.git(&format!("config {setting}"));
    }
    service.git("update-index --force-write-index");
    assert_eq!(service.assert_facts_of_git(), before);
}

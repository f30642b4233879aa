//! Build metadata in the states that a repository and its arguments can be in.
//!
//! Real git makes each state in a folder of its own, real cargo builds a service there, and the
//! service says what it knows. That must be what git says, and a second build must do nothing.
//!
//! Needs git 2.45 for reftables and root for an owner that git distrusts; what cannot be had is
//! skipped and says so. Needs Unix for links, owners and variables that are not UTF-8.
#![cfg(unix)]

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    mem,
    os::unix::{
        ffi::OsStringExt,
        fs::{PermissionsExt, chown, symlink},
    },
    path::{Path, PathBuf},
    process::{self, Command, Output},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::UNIX_EPOCH,
};

// The repository changes.

#[test]
fn a_new_commit_is_known() {
    let service = Service::committed("service");
    service.follows(&["next", "commit --amend --allow-empty -m amended"]);
}

#[test]
fn a_new_commit_is_known_after_gc() {
    let service = Service::committed("service");
    service.follows(&["gc", "next", "pack-refs --all", "next"]);
}

#[test]
fn a_new_commit_is_known_on_a_packed_branch_with_slashes() {
    let service = Service::committed("service");
    service.git("checkout -b team/feature/one");
    service.follows(&["pack-refs --all", "next"]);
}

#[test]
fn a_new_commit_is_known_that_is_packed_at_once() {
    let service = Service::committed("service");
    let first = service.git("rev-parse HEAD");
    service.git("next");
    let second = service.git("rev-parse HEAD");
    service.git("pack-refs --all");
    service.knows_what_git_says();
    // Other implementations of git write there without a loose file.
    let packed = service.read(".git/packed-refs");
    service.write(".git/packed-refs", &packed.replace(&second, &first));
    assert_eq!(service.knows_what_git_says()["commit"], first);
}

#[test]
fn a_new_commit_is_known_on_a_branch_that_is_an_alias() {
    let service = Service::committed("service");
    service.git("symbolic-ref refs/heads/alias refs/heads/main");
    service.git("checkout alias");
    let old = service.git("commit-tree -m old HEAD^{tree}");
    service.git(&format!("update-ref --create-reflog HEAD {old}"));
    service.follows(&["next"]);
}

#[test]
fn a_new_commit_is_known_when_detached() {
    let service = Service::committed("service");
    service.git("next");
    service.follows(&["checkout --detach HEAD~1", "next"]);
}

#[test]
fn another_branch_is_known() {
    let service = Service::committed("service");
    service.git("branch other");
    service.git("next");
    service.follows(&["symbolic-ref HEAD refs/heads/other", "checkout main"]);
}

#[test]
fn a_new_commit_is_known_in_a_linked_work_tree() {
    let mut service = Service::committed("service");
    service.git("worktree add ../linked");
    service.package = service.folder.join("linked");
    service.follows(&["next", "pack-refs --all", "next"]);
}

#[test]
fn a_new_commit_is_known_with_reftables() {
    let mut service = Service::new("service");
    if !service.try_git("init --ref-format=reftable") {
        return println!("skipped: this git has no reftables");
    }
    service.commit_all();
    service.follows(&["next", "pack-refs --all", "next"]);
    service.git("worktree add ../linked");
    service.package = service.folder.join("linked");
    service.follows(&["next", "checkout --detach", "next"]);
}

#[test]
fn a_new_commit_is_known_with_sha256() {
    let mut service = Service::new("service");
    service.git("init --object-format=sha256");
    service.commit_all();
    service.follows(&["next"]);
    service.without_git();
    service.knows_the_commit_alone();
}

#[test]
fn a_new_commit_is_known_in_a_subfolder() {
    let service = Service::new("repository/services/api");
    service.git_in("repository", "init");
    service.commit_all();
    service.follows(&["next"]);
}

#[test]
fn a_new_commit_is_known_in_a_submodule() {
    let mut service = Service::committed("origin");
    service.git_in("", "init parent");
    service.git_in("parent", "submodule add ../origin service");
    service.git_in("parent", "commit -m parent");
    service.package = service.folder.join("parent/service");
    service.follows(&["next"]);
    service.without_git();
    service.knows_the_commit_alone();
}

#[test]
fn a_shallow_clone_has_its_commit_and_later_its_tag() {
    let mut service = Service::committed("origin");
    service.git("tag v1");
    service.git("next");
    service.git("next");
    let origin = format!("file://{}", service.package.display());
    service.git_in("", &format!("clone --depth 1 {origin} clone"));
    service.package = service.folder.join("clone");
    service.git("fetch --depth 1 origin tag v1");
    let facts = service.knows_what_git_says();
    assert!(facts["commit"].starts_with(&facts["describe"]));

    service.git("fetch --unshallow");
    let facts = service.knows_what_git_says();
    assert!(facts["describe"].starts_with("v1-2-g"));
}

#[test]
fn tags_come_and_go() {
    let service = Service::committed("service");
    service.knows_what_git_says();
    service.git("tag v1");
    assert_eq!(service.knows_what_git_says()["describe"], "v1");
    service.git("tag --annotate --message=two v2");
    assert_eq!(service.knows_what_git_says()["describe"], "v2");
    service.git("pack-refs --all");
    assert_eq!(service.knows_what_git_says()["describe"], "v2");
    service.git("tag --delete v2");
    assert_eq!(service.knows_what_git_says()["describe"], "v1");
    service.git("next");
    assert!(service.knows_what_git_says()["describe"].starts_with("v1-1-g"));
}

#[test]
fn the_first_commit_is_known() {
    let service = Service::new("service");
    service.git("init");
    service.knows_nothing_of_git();
    service.git("add .");
    service.knows_nothing_of_git();
    service.git("commit -m first");
    service.knows_what_git_says();
}

#[test]
fn a_repository_made_later_is_found_with_the_next_edit() {
    let service = Service::new("service");
    service.knows_nothing_of_git();
    service.git("init");
    service.commit_all();
    service.edit("src/main.rs");
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
}

// The tree changes.

#[test]
fn an_edited_source_is_dirty_until_git_restores_it() {
    let service = Service::committed("service");
    assert_eq!(service.knows_what_git_says()["dirty"], "false");
    service.edit("src/main.rs");
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
    service.git("checkout .");
    assert_eq!(service.knows_what_git_says()["dirty"], "false");
    service.edit("build.rs");
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
    service.git("commit --all -m second");
    assert_eq!(service.knows_what_git_says()["dirty"], "false");
}

#[test]
fn an_edit_is_dirty_until_it_is_undone_by_hand() {
    let service = Service::committed("service");
    service.knows_what_git_says();
    let one = service.edit("src/main.rs");
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
    let two = service.edit("Cargo.toml");
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
    service.write("src/main.rs", &one);
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
    service.write("Cargo.toml", &two);
    assert_eq!(service.knows_what_git_says()["dirty"], "false");
}

#[test]
fn an_edit_anywhere_in_the_repository_is_dirty() {
    let service = Service::new("repository/api");
    service.write("../library/src/lib.rs", "pub fn f() {}\n");
    service.git_in("repository", "init");
    service.commit_all();
    service.knows_what_git_says();
    service.edit("../library/src/lib.rs");
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
}

#[test]
fn an_edit_in_a_submodule_is_dirty() {
    let service = Service::committed("service");
    service.git_in("", "init library");
    service.write("../library/lib.rs", "pub fn f() {}\n");
    service.git_in("library", "add .");
    service.git_in("library", "commit -m library");
    service.git("submodule add ../library");
    service.git("commit -m submodule");
    service.knows_what_git_says();
    let before = service.edit("library/lib.rs");
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
    service.write("library/lib.rs", &before);
    assert_eq!(service.knows_what_git_says()["dirty"], "false");
}

#[test]
fn a_deleted_file_is_dirty() {
    let service = Service::new("service");
    service.write("notes", "to be deleted\n");
    service.git("init");
    service.commit_all();
    service.knows_what_git_says();
    fs::remove_file(service.package.join("notes")).unwrap();
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
    service.git("checkout notes");
    assert_eq!(service.knows_what_git_says()["dirty"], "false");
}

#[test]
fn a_new_file_is_dirty_once_it_is_added() {
    let service = Service::committed("service");
    service.knows_what_git_says();
    service.write("notes", "not yet added\n");
    assert_eq!(service.knows_what_git_says()["dirty"], "false");
    service.git("add notes");
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
    service.git("reset");
    assert_eq!(service.knows_what_git_says()["dirty"], "false");
}

#[test]
fn files_with_strange_names_are_watched_or_left_alone() {
    let service = Service::new("service");
    let latin1 = OsString::from_vec(b"gr\xf6\xdfe".to_vec());
    fs::write(service.package.join(latin1), "not UTF-8\n").unwrap();
    service.write("line\nbreak", "a control character\n");
    service.write("größe \"1\"", "quoted by git\n");
    symlink(
        &service.folder,
        service.package.join("link to what a build changes"),
    )
    .unwrap();
    service.git("init");
    service.commit_all();
    service.knows_what_git_says();
    service.edit("größe \"1\"");
    assert_eq!(service.knows_what_git_says()["dirty"], "true");
}

#[test]
fn a_dirty_tree_is_built_once_however_often_it_is_edited() {
    let service = Service::new("repository/service");
    service.write("../README", "first\n");
    service.write("../main.tf", "first\n");
    service.git_in("repository", "init");
    service.commit_all();
    service.edit("../README");
    service.knows_what_git_says();
    service.edit("../main.tf");
    service.builds_nothing();
    service.git("next");
    service.knows_what_git_says();
    service.edit("../main.tf");
    service.builds_nothing();
}

#[test]
fn a_new_commit_compiles_the_last_crate_alone() {
    let service = Service::committed("service");
    service.build();
    service.git("next");
    let output = stderr(&service.cargo(&["build"]));
    let compiled: Vec<_> = output
        .lines()
        .filter(|l| l.contains("Compiling "))
        .collect();
    assert_eq!(compiled.len(), 1, "{output}");
    assert!(compiled[0].contains("Compiling service "), "{output}");
}

#[test]
fn nothing_is_built_again_because_someone_looks() {
    let service = Service::new("service");
    service.git("init");
    // Git refreshes the index once where a file is as young as the index.
    for path in ["Cargo.toml", "build.rs", "src/main.rs"] {
        let file = File::options().write(true).open(service.package.join(path));
        file.unwrap().set_modified(UNIX_EPOCH).unwrap();
    }
    service.commit_all();
    service.knows_what_git_says();
    service.git("status");
    service.git("log");
    service.git("diff");
    service.git("fetch --all");
    service.builds_nothing();
}

#[test]
fn the_repository_is_left_as_it_was() {
    let service = Service::committed("service");
    let ran = service.folder.join("monitor-ran");
    let monitor = service.folder.join("monitor");
    fs::write(&monitor, format!("#!/bin/sh\n: > '{}'\n", ran.display())).unwrap();
    fs::set_permissions(&monitor, Permissions::from_mode(0o755)).unwrap();
    service.git(&format!("config core.fsmonitor {}", monitor.display()));
    // Same content, new time: an index that git would like to refresh.
    service.write("build.rs", BUILD_SCRIPT);
    let index = fs::read(service.package.join(".git/index")).unwrap();

    service.build();

    assert_eq!(fs::read(service.package.join(".git/index")).unwrap(), index);
    assert!(!ran.exists(), "the repository's monitor was started");
}

#[test]
fn settings_do_not_change_what_is_known() {
    let service = Service::committed("service");
    service.git("tag v1");
    let before = service.knows_what_git_says();
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
    assert_eq!(service.knows_what_git_says(), before);
}

// The folder is in somebody else's repository.

#[test]
fn an_untracked_package_is_not_its_parents() {
    let service = Service::inside_a_foreign_repository();
    service.knows_nothing_of_git();
    service.git_in("parent", "next");
    service.knows_nothing_of_git();

    service.git("add .");
    service.git("commit -m adopted");
    service.knows_what_git_says();
}

#[test]
fn an_ignored_package_is_not_its_parents() {
    let service = Service::inside_a_foreign_repository();
    service.write("../.gitignore", "/service\n");
    service.git_in("parent", "add .gitignore");
    service.git_in("parent", "commit -m ignored");
    service.knows_nothing_of_git();
}

#[test]
fn an_untracked_package_is_not_its_parents_without_git() {
    let mut service = Service::inside_a_foreign_repository();
    service.without_git();
    service.knows_nothing_of_git();
}

#[test]
fn a_package_named_like_a_tracked_one_is_not_its_parents_without_git() {
    let mut service = Service::inside_a_foreign_repository();
    service.write("../other/service/Cargo.toml", "");
    service.git_in("parent", "add other");
    service.git_in("parent", "commit -m other");
    service.without_git();
    service.knows_nothing_of_git();
}

#[test]
fn a_file_named_like_a_revision_is_not_in_the_way() {
    let service = Service::committed("service");
    service.write("HEAD", "a head of cabbage\n");
    service.follows(&["add HEAD", "commit -m head"]);
}

#[test]
fn an_unfinished_repository_is_not_in_the_way() {
    let service = Service::new("repository/service");
    service.git_in("repository", "init");
    service.commit_all();
    fs::create_dir(service.package.join(".git")).unwrap();
    service.follows(&["next"]);
}

#[test]
fn variables_of_a_git_hook_do_not_misdirect() {
    let mut service = Service::committed("service");
    service.git_in("", "init other");
    service.git_in("other", "commit --allow-empty -m other");
    let other = service.folder.join("other");
    service.set("GIT_DIR", other.join(".git"));
    service.set("GIT_WORK_TREE", &other);
    service.set("GIT_INDEX_FILE", other.join(".git/index"));
    service.set("GIT_COMMON_DIR", other.join(".git"));
    service.set("GIT_OBJECT_DIRECTORY", other.join(".git/objects"));
    service.set("GIT_CEILING_DIRECTORIES", service.package.clone());
    service.set("GIT_PREFIX", "other/");
    service.set("GIT_NAMESPACE", "other");
    service.set("GIT_LITERAL_PATHSPECS", "1");
    service.knows_what_git_says();
    service.edit("src/main.rs");
    service.knows_what_git_says();
}

#[test]
fn what_cargo_run_passes_on_is_not_taken_over() {
    let outer = Service::committed("outer");
    outer.knows_what_git_says();
    let inner = Service::beside(&outer.folder, "inner");
    let target = inner.target();
    let build = [
        "run",
        "--",
        env!("CARGO"),
        "build",
        "--manifest-path",
        "../inner/Cargo.toml",
        "--target-dir",
        target.to_str().unwrap(),
    ];

    outer.cargo(&build);
    assert_eq!(git_facts(&inner.run("debug", "service")), Facts::new());

    inner.without_build_script();
    outer.cargo(&build);
    assert_eq!(git_facts(&inner.run("debug", "service")), Facts::new());
}

// Git is not there, or refuses.

#[test]
fn the_commit_is_known_without_git() {
    let mut service = Service::committed("service");
    service.without_git();
    service.knows_the_commit_alone();
    service.git("next");
    service.knows_the_commit_alone();
    service.git("pack-refs --all");
    service.knows_the_commit_alone();
    service.git("checkout --detach");
    service.git("next");
    service.knows_the_commit_alone();

    service.git("worktree add -b linked ../linked");
    service.package = service.folder.join("linked");
    service.knows_the_commit_alone();
    service.git("next");
    service.knows_the_commit_alone();
}

#[test]
fn the_commit_is_known_without_git_in_a_subfolder() {
    let mut service = Service::new("repository/services/api");
    service.git_in("repository", "init");
    service.commit_all();
    service.without_git();
    service.knows_the_commit_alone();
    // An intent to add makes an index of version 3.
    service.write("AUTHORS", "later\n");
    service.git("add --intent-to-add AUTHORS");
    service.knows_the_commit_alone();
}

#[test]
fn a_reftable_is_not_readable_without_git() {
    let mut service = Service::new("service");
    if !service.try_git("init --ref-format=reftable") {
        return println!("skipped: this git has no reftables");
    }
    service.commit_all();
    service.without_git();
    service.knows_nothing_of_git();
}

#[test]
fn the_commit_is_known_where_git_distrusts_the_owner() {
    let service = Service::committed("service");
    let commit = service.git("rev-parse HEAD");
    if !service.give_away(".") {
        return println!("skipped: only root can give a repository away");
    }
    assert!(!service.try_git("rev-parse HEAD"), "git should refuse");
    let facts = service.build();
    assert_eq!(git_facts(&facts), known(&[("commit", &commit)]));
}

#[test]
fn a_distrusted_parent_is_not_asked() {
    let service = Service::inside_a_foreign_repository();
    if !service.give_away("..") {
        return println!("skipped: only root can give a repository away");
    }
    service.knows_nothing_of_git();
}

#[test]
fn a_packaged_crate_knows_its_commit() {
    let hash = "3f2a91c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6";
    let service = Service::inside_a_foreign_repository();
    for (git, facts) in [
        (
            format!("{{\n    \"sha1\": \"{hash}\"\n  }}"),
            [("commit", hash), ("dirty", "false")],
        ),
        (
            format!("{{\n    \"sha1\": \"{hash}\",\n    \"dirty\": true\n  }}"),
            [("commit", hash), ("dirty", "true")],
        ),
    ] {
        let record = format!("{{\n  \"git\": {git},\n  \"path_in_vcs\": \"\"\n}}");
        service.write(".cargo_vcs_info.json", &record);
        assert_eq!(git_facts(&service.build()), known(&facts));
    }
    service.write(".cargo_vcs_info.json", "{\"git\":{\"sha1\":\"unknown\"}}");
    service.knows_nothing_of_git();
}

// Where the folder is.

#[test]
fn a_folder_with_a_strange_name_is_as_good() {
    let service = Service::committed("größe 1/a \"service\"");
    service.follows(&["next"]);
}

#[test]
fn a_folder_with_a_line_break_builds() {
    let service = Service::committed("a\ncargo:rustc-env=LIFESIGN_VERSION=injected");
    service.cargo(&["build"]);
    assert_eq!(service.run("debug", "service")["version"], "1.2.3");
}

#[test]
fn a_linked_folder_is_where_it_leads() {
    let mut service = Service::new("repository/service");
    service.git_in("repository", "init");
    service.commit_all();
    let link = service.folder.join("link");
    symlink(&service.package, &link).unwrap();
    service.package = link;
    service.follows(&["next"]);
    service.without_git();
    service.knows_the_commit_alone();
}

// Arguments of the build.

#[test]
fn arguments_win_in_their_order() {
    let mut service = Service::committed("service");
    assert_eq!(service.build()["version"], "1.2.3");
    for (name, fact) in [
        ("VERSION", "version"),
        ("LIFESIGN_VERSION", "version"),
        ("GIT_COMMIT", "commit"),
        ("LIFESIGN_GIT_COMMIT", "commit"),
        ("LIFESIGN_GIT_DESCRIBE", "describe"),
        ("LIFESIGN_GIT_COMMIT_DATE", "commit_date"),
        ("SOURCE_DATE_EPOCH", "build_date"),
        ("BUILD_DATE", "build_date"),
        ("LIFESIGN_BUILD_DATE", "build_date"),
        ("LIFESIGN_RUSTC", "rustc"),
        ("LIFESIGN_TARGET", "target"),
        ("LIFESIGN_PROFILE", "profile"),
    ] {
        let before = service.build();
        let (given, known) = match name {
            "SOURCE_DATE_EPOCH" => ("1795473060".to_owned(), "2026-11-23T22:31:00Z".to_owned()),
            _ => (format!("given by {name}"), format!("given by {name}")),
        };
        assert_ne!(before.get(fact), Some(&known));
        service.set(name, given);
        assert_eq!(service.build()[fact], known);
    }
    for (given, known) in [
        ("true", "true"),
        ("0", "false"),
        ("1", "true"),
        ("false", "false"),
    ] {
        service.set("LIFESIGN_GIT_DIRTY", given);
        assert_eq!(service.build()["dirty"], known);
    }
}

#[test]
fn arguments_need_no_build_script() {
    let mut service = Service::committed("service");
    service.without_build_script();
    assert_eq!(
        service.build(),
        known(&[("name", "service"), ("version", "1.2.3")])
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
        assert_eq!(service.build(), known(&expected));
    }
    service.set("LIFESIGN_VERSION", "third");
    assert_eq!(service.build()["version"], "third");
}

#[test]
fn an_argument_taken_back_gives_way_to_git() {
    let mut service = Service::committed("service");
    service.set("GIT_COMMIT", "given");
    assert_eq!(service.build()["commit"], "given");
    service.environment.clear();
    service.knows_what_git_says();
}

#[test]
fn empty_arguments_are_unset() {
    let mut service = Service::committed("service");
    let before = service.knows_what_git_says();
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
    let mut service = Service::committed("service");
    let facts = service.knows_what_git_says();
    service.set("GIT_COMMIT", &facts["commit"][..9]);
    let mut expected = facts.clone();
    expected.insert("commit".into(), facts["commit"][..9].into());
    assert_eq!(service.build(), expected);

    service.set("GIT_COMMIT", "3f2a91c0d");
    assert_eq!(
        git_facts(&service.build()),
        known(&[("commit", "3f2a91c0d")])
    );

    service.set("LIFESIGN_GIT_DIRTY", "true");
    assert_eq!(
        git_facts(&service.build()),
        known(&[("commit", "3f2a91c0d"), ("dirty", "true")])
    );
}

#[test]
fn a_source_date_that_is_none_is_named_and_ignored() {
    let mut service = Service::committed("service");
    for value in [
        OsString::from("yesterday"),
        OsString::from("-1"),
        OsString::from("253402300800"),
        OsString::from_vec(vec![b'1', 0xff]),
    ] {
        service.set("SOURCE_DATE_EPOCH", &value);
        let output = service.cargo(&["build"]);
        let warning = "SOURCE_DATE_EPOCH is not a number of seconds since 1970 and is ignored";
        assert!(stderr(&output).contains(warning), "{}", stderr(&output));
        assert_eq!(
            service.run("debug", "service").get("build_date"),
            None,
            "{value:?}"
        );
    }
    service.set("SOURCE_DATE_EPOCH", "0");
    assert_eq!(service.build()["build_date"], "1970-01-01T00:00:00Z");
}

#[test]
fn an_argument_cannot_break_out_of_its_line() {
    let mut service = Service::committed("service");
    for name in ARGUMENTS {
        service.set(name, "1.0\ncargo:rustc-env=LIFESIGN_EMITTED_RUSTC=injected");
    }
    service.set("LIFESIGN_RUSTC", "\u{1b}[31m");
    let facts = service.build();
    assert_eq!(facts["version"], "1.0");
    assert_eq!(facts["commit"], "1.0");
    assert_eq!(facts["rustc"], rustc_says("release: "));
    assert_eq!(facts.get("dirty"), None);
}

#[test]
fn an_argument_that_is_not_utf8_is_named_and_ignored() {
    let mut service = Service::committed("service");
    for name in ARGUMENTS {
        service.set(name, OsString::from_vec(vec![b'1', 0xff]));
    }
    let output = service.cargo(&["build"]);
    for name in ARGUMENTS {
        let warning = format!("{name} is not UTF-8 and is ignored");
        assert!(stderr(&output).contains(&warning), "{}", stderr(&output));
    }
    service.knows_what_git_says();
}

#[test]
fn vergens_variables_count_after_the_arguments() {
    let mut service = Service::committed("service");
    let before = service.knows_what_git_says();
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
    let vergens = [
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
    assert_eq!(service.build(), known(&vergens));

    let emit = "lifesign::build::emit();";
    service.write(
        "build.rs",
        &build_script(emit, "7e57ed", "2026-11-22T10:11:12Z"),
    );
    let mut with_profile = known(&vergens);
    with_profile.insert("profile".into(), "debug".into());
    assert_eq!(service.build(), with_profile);

    let nothing = "VERGEN_IDEMPOTENT_OUTPUT";
    service.write("build.rs", &build_script(emit, nothing, nothing));
    let facts = service.build();
    assert_eq!(facts["commit"], before["commit"]);
    assert_eq!(facts["commit_date"], "2026-11-22");

    service.set("GIT_COMMIT", "given");
    assert_eq!(service.build()["commit"], "given");
}

// The package and how it is built.

#[test]
fn two_binaries_of_one_package_have_two_names() {
    let service = Service::new("service");
    service.write("src/bin/worker.rs", MAIN);
    assert_eq!(service.build()["name"], "service");
    assert_eq!(service.run("debug", "worker")["name"], "worker");
}

#[test]
fn an_old_rust_version_does_not_matter() {
    let service = Service::new("service");
    let manifest = service.read("Cargo.toml");
    let old = "edition = \"2018\"\nrust-version = \"1.56\"";
    service.write("Cargo.toml", &manifest.replace("edition = \"2024\"", old));
    service.git("init");
    service.commit_all();
    service.knows_what_git_says();
}

#[test]
fn compiler_target_and_profile_are_those_of_the_build() {
    let service = Service::new("service");
    let facts = service.build();
    assert_eq!(facts["rustc"], rustc_says("release: "));
    assert_eq!(facts["target"], rustc_says("host: "));
    assert_eq!(facts["profile"], "debug");
    service.cargo(&["build", "--release"]);
    assert_eq!(service.run("release", "service")["profile"], "release");
}

/// A commit that moves its branch and touches no other file, neither index nor log.
const NEXT: &str = "alias.next=!git update-ref HEAD $(git commit-tree -p HEAD -m n HEAD^{tree})";

/// What the macro reads and people set.
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

const BUILD_SCRIPT: &str = "fn main() {\n    lifesign::build::emit();\n}\n";

/// Says what it knows, or runs the command that it is given.
const MAIN: &str = r#"
const BUILD: lifesign::BuildInfo = lifesign::build_info!();

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let Some(program) = arguments.next() {
        let status = std::process::Command::new(program).args(arguments).status();
        assert!(status.unwrap().success());
        return;
    }
    let dirty = BUILD.dirty().map(|dirty| dirty.to_string());
    for (fact, value) in [
        ("name", Some(BUILD.name())),
        ("version", Some(BUILD.version())),
        ("commit", BUILD.commit()),
        ("describe", BUILD.describe()),
        ("commit_date", BUILD.commit_date()),
        ("build_date", BUILD.build_date()),
        ("dirty", dirty.as_deref()),
        ("rustc", BUILD.rustc()),
        ("target", BUILD.target()),
        ("profile", BUILD.profile()),
    ] {
        if let Some(value) = value {
            println!("{fact} {value}");
        }
    }
}
"#;

/// What a service knows about its build, without what it does not know.
type Facts = BTreeMap<String, String>;

fn known(facts: &[(&str, &str)]) -> Facts {
    facts
        .iter()
        .map(|(fact, value)| ((*fact).to_owned(), (*value).to_owned()))
        .collect()
}

fn git_facts(facts: &Facts) -> Facts {
    let mut facts = facts.clone();
    facts.retain(|fact, _| ["commit", "describe", "commit_date", "dirty"].contains(&&**fact));
    facts
}

/// A service in a folder that is gone when the test is over, unless it failed.
struct Service {
    folder: PathBuf,
    package: PathBuf,
    environment: Vec<(String, OsString)>,
}

impl Service {
    fn new(package: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static LIFESIGN: OnceLock<PathBuf> = OnceLock::new();

        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("lifesign-{}-{count}", process::id()));
        fs::create_dir(&folder).unwrap();
        let service = Self {
            // As cargo and git name it, were the temporary folder a link.
            package: folder.canonicalize().unwrap().join(package),
            folder,
            environment: Vec::new(),
        };
        service.write_package();
        let compiled = LIFESIGN.get_or_init(|| {
            let first = Self::beside(Path::new(env!("CARGO_TARGET_TMPDIR")), "metadata");
            let target = first.target();
            first.cargo(&["build"]);
            // Kept for the next run.
            mem::forget(first);
            target
        });
        let copied = Command::new("cp")
            .arg("-a")
            .args([compiled, &service.target()])
            .status();
        assert!(copied.unwrap().success());
        service
    }

    fn committed(package: &str) -> Self {
        let service = Self::new(package);
        service.git("init");
        service.commit_all();
        service
    }

    fn inside_a_foreign_repository() -> Self {
        let service = Self::new("parent/service");
        service.git_in("parent", "init");
        service.write("../README", "not a package\n");
        service.git_in("parent", "add README");
        service.git_in("parent", "commit -m parent");
        service
    }

    fn write_package(&self) {
        let lifesign = env!("CARGO_MANIFEST_DIR");
        self.write(
            "Cargo.toml",
            &format!(
                r#"
[package]
name = "service"
version = "1.2.3"
edition = "2024"

[dependencies]
lifesign = {{ path = {lifesign:?}, default-features = false }}

[build-dependencies]
lifesign = {{ path = {lifesign:?}, default-features = false, features = ["build"] }}

[workspace]
"#
            ),
        );
        self.write("build.rs", BUILD_SCRIPT);
        self.write("src/main.rs", MAIN);
    }

    fn beside(folder: &Path, name: &str) -> Self {
        let service = Self {
            folder: folder.join(name),
            package: folder.join(name),
            environment: Vec::new(),
        };
        service.write_package();
        service
    }

    fn without_build_script(&self) {
        fs::remove_file(self.package.join("build.rs")).unwrap();
    }

    /// Leads to every program but git.
    fn without_git(&mut self) {
        let programs = self.folder.join("programs");
        fs::create_dir(&programs).unwrap();
        for folder in env::split_paths(&env::var_os("PATH").unwrap()) {
            for program in fs::read_dir(folder).into_iter().flatten().flatten() {
                if program.file_name() != "git" {
                    // The first of a name is the one that counts.
                    let _ = symlink(program.path(), programs.join(program.file_name()));
                }
            }
        }
        self.set("PATH", programs);
        // Cargo does not know that it matters.
        let _ = fs::remove_dir_all(self.target());
    }

    /// Makes somebody else the owner.
    fn give_away(&self, path: &str) -> bool {
        let root = self.package.join(path);
        [".", ".git"]
            .iter()
            .all(|path| chown(root.join(path), Some(65534), Some(65534)).is_ok())
    }

    fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.environment.retain(|(other, _)| other != name);
        self.environment
            .push((name.to_owned(), value.as_ref().to_owned()));
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.package.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.package.join(path)).unwrap()
    }

    /// Adds an empty line, and returns what was there.
    fn edit(&self, path: &str) -> String {
        let before = self.read(path);
        self.write(path, &format!("{before}\n"));
        before
    }

    fn commit_all(&self) {
        self.git("add .");
        self.git("add :/");
        self.git("commit -m first");
    }

    fn git(&self, arguments: &str) -> String {
        let output = self.run_git(&self.package, arguments);
        assert!(
            output.status.success(),
            "git {arguments}: {}",
            stderr(&output)
        );
        stdout(&output).trim_end().to_owned()
    }

    fn git_in(&self, path: &str, arguments: &str) {
        let folder = self.folder.join(path);
        fs::create_dir_all(&folder).unwrap();
        let output = self.run_git(&folder, arguments);
        assert!(
            output.status.success(),
            "git {arguments}: {}",
            stderr(&output)
        );
    }

    fn try_git(&self, arguments: &str) -> bool {
        self.run_git(&self.package, arguments).status.success()
    }

    fn run_git(&self, folder: &Path, arguments: &str) -> Output {
        static COMMITS: AtomicU32 = AtomicU32::new(1_795_473_060);
        let date = format!("{} +0130", COMMITS.fetch_add(1, Ordering::Relaxed));
        command("git")
            .args(["-c", "init.defaultBranch=main"])
            .args(["-c", "protocol.file.allow=always"])
            .args(["-c", "core.logAllRefUpdates=false"])
            .args(["-c", NEXT])
            .args(arguments.split_whitespace())
            .current_dir(folder)
            .env("GIT_AUTHOR_NAME", "author")
            .env("GIT_AUTHOR_EMAIL", "author@example.com")
            .env("GIT_COMMITTER_NAME", "committer")
            .env("GIT_COMMITTER_EMAIL", "committer@example.com")
            .env("GIT_COMMITTER_DATE", date)
            .env("TZ", "UTC")
            .output()
            .unwrap()
    }

    /// What git says about the package's commit, without touching the index.
    fn git_says(&self) -> Facts {
        let git = |arguments: &str| self.git(&format!("--no-optional-locks {arguments}"));
        let dirty = !git("status --porcelain --untracked-files=no").is_empty();
        known(&[
            ("commit", &git("rev-parse HEAD")),
            ("describe", &git("describe --tags --always")),
            (
                "commit_date",
                &git(
                    "log -1 --no-show-signature --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ",
                ),
            ),
            ("dirty", &dirty.to_string()),
        ])
    }

    fn cargo(&self, arguments: &[&str]) -> Output {
        let output = command(env!("CARGO"))
            .arg(arguments[0])
            .arg("--manifest-path")
            .arg(self.package.join("Cargo.toml"))
            .args(&arguments[1..])
            .current_dir(&self.package)
            .env("CARGO_TARGET_DIR", self.target())
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "cargo {arguments:?}: {}",
            stderr(&output)
        );
        output
    }

    fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    /// Builds, builds again for nothing, and asks the service what it knows.
    fn build(&self) -> Facts {
        self.cargo(&["build"]);
        self.builds_nothing();
        self.run("debug", "service")
    }

    fn builds_nothing(&self) {
        let output = stderr(&self.cargo(&["build", "--verbose"]));
        assert!(output.contains("Fresh service "), "{output}");
        assert!(!output.contains("Running"), "{output}");
    }

    fn run(&self, profile: &str, binary: &str) -> Facts {
        let output = command(self.target().join(profile).join(binary))
            .output()
            .unwrap();
        let lines = stdout(&output);
        let facts = lines.lines().filter_map(|line| line.split_once(' '));
        known(&facts.collect::<Vec<_>>())
    }

    fn knows_what_git_says(&self) -> Facts {
        let facts = self.build();
        assert_eq!(git_facts(&facts), self.git_says());
        facts
    }

    fn follows(&self, commands: &[&str]) {
        self.knows_what_git_says();
        for command in commands {
            self.git(command);
            self.knows_what_git_says();
        }
    }

    fn knows_the_commit_alone(&self) {
        let commit = self.git("rev-parse HEAD");
        assert_eq!(git_facts(&self.build()), known(&[("commit", &commit)]));
    }

    fn knows_nothing_of_git(&self) {
        assert_eq!(git_facts(&self.build()), Facts::new());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Without what the caller's environment and settings would change.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let ours = ["GIT_", "LIFESIGN_", "VERGEN_"];
        if ours.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    for name in [
        "VERSION",
        "BUILD_DATE",
        "SOURCE_DATE_EPOCH",
        "CARGO_BUILD_TARGET",
        "SUDO_UID",
    ] {
        command.env_remove(name);
    }
    command.env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

fn rustc_says(start: &str) -> String {
    let output = command("rustc").arg("-vV").output().unwrap();
    let text = stdout(&output);
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    line.unwrap().to_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

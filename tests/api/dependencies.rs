//! The page of dependencies is true: it names what a service compiles, no more and no less.

use std::{collections::BTreeSet, process::Command};

const PAGE: &str = include_str!("../../docs/dependencies.md");

#[test]
fn the_page_names_every_crate_that_a_service_compiles() {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--offline", "--edges=normal,build"])
        .args(["--prefix=none", "--format={p}", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    let output = tree.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let tree = String::from_utf8(output.stdout).unwrap();
    let compiled: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "lifesign")
        .collect();

    // Ours have a row each, and what they bring stands in the second column of another table.
    let (ours, brought) = PAGE.split_once("## Brought").expect("two tables");
    let named: BTreeSet<_> = crates(ours, 1).chain(crates(brought, 2)).collect();

    assert_eq!(named, compiled);
}

/// What stands in that column, in the marks of code.
fn crates(page: &str, column: usize) -> impl Iterator<Item = &str> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(move |row| row.split('|').nth(column));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2))
}

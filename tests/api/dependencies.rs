//! The documentation lists exactly the crates that a service compiles, and the number of crates of
//! each feature is right.

use std::{collections::BTreeSet, process::Command};

const PAGE: &str = include_str!("../../docs/dependencies.md");
const README: &str = include_str!("../../README.md");
const CRATE: &str = include_str!("../../src/lib.rs");

#[test]
fn the_page_names_every_crate_that_a_service_compiles() {
    let compiled = compiled(&[]);

    // The page's first table lists the direct dependencies, and its second table lists the crates
    // that the direct dependencies bring.
    let (ours, brought) = PAGE.split_once("## Brought").expect("two tables");
    let named: BTreeSet<_> = crates(ours, 1).chain(crates(brought, 2)).collect();

    assert_eq!(named, compiled.iter().map(String::as_str).collect());
}

#[test]
fn feature_tables_count_the_crates_of_each_feature() {
    for (page, start) in [(README, "| `"), (CRATE, "//! | `")] {
        for feature in ["core", "axum", "listener", "https", "build"] {
            let start = format!("{start}{feature}` | ");
            let mut rows = page.lines().filter(|line| line.starts_with(&start));
            let row = rows.find(|row| row.contains("| yes |") || row.contains("| no |"));
            let count = row.and_then(|row| row.rsplit('|').nth(1)).map(str::trim);

            let crates = compiled(&["--no-default-features", "--features", feature]);

            assert_eq!(count, Some(&*crates.len().to_string()), "{feature}");
        }
    }
}

/// Returns the names of the crates that a service compiles because of lifesign.
fn compiled(features: &[&str]) -> BTreeSet<String> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--offline", "--edges=normal,build"])
        .args(["--prefix=none", "--format={p}", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    let output = tree.args(features).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let tree = String::from_utf8(output.stdout).unwrap();
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let names = names.filter(|name| *name != "lifesign");
    names.map(str::to_owned).collect()
}

/// Returns the names in backticks in one column of a page's tables.
fn crates(page: &str, column: usize) -> impl Iterator<Item = &str> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(move |row| row.split('|').nth(column));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2))
}

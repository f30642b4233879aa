//! The README and SECURITY.md are true. `tests/e2e/tests/newcomer.rs` follows the README.

use std::{fs, path::Path};

const README: &str = include_str!("../../README.md");

/// The block that starts with this fence line, the nth of its kind.
fn block(fence: &str, nth: usize) -> &'static str {
    let start = format!("```{fence}\n");
    let rest = README.split(&start).nth(nth + 1).expect("a block");
    rest.split("```").next().expect("its end")
}

#[test]
fn the_program_is_the_example_word_for_word() {
    let example = include_str!("../../examples/hello.rs");
    let (_, program) = example.split_once("\n\n").expect("a header");
    assert_eq!(block("rust,no_run", 0), program);
}

#[test]
fn adding_it_to_a_service_takes_at_most_five_lines() {
    let added = block("diff", 0)
        .lines()
        .filter(|line| line.starts_with('+'));
    assert_eq!(added.count(), 5);
}

#[test]
fn every_defence_is_tested_by_what_security_names() {
    let security = include_str!("../../SECURITY.md");
    let mut tests = String::new();
    for directory in ["tests", "examples/tls/tests"] {
        read_all(Path::new(directory), &mut tests);
    }
    let rows = security.lines().filter(|line| line.starts_with("| "));
    // Below its head and the line under that.
    for row in rows.skip(1) {
        let named = row.split('|').nth(4).expect("four columns");
        let mut names = named.split('`').skip(1).step_by(2).peekable();
        assert!(names.peek().is_some(), "tested by nothing: {row}");
        for name in names {
            let is_test = tests.contains(&format!("fn {name}("));
            assert!(is_test || Path::new(name).is_file(), "{name}");
        }
    }
}

/// The text of every Rust file in a directory and below it.
fn read_all(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *text += &fs::read_to_string(path).unwrap();
        }
    }
}

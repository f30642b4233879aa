//! The README and SECURITY.md are true. `tests/e2e/tests/newcomer.rs` follows the README.

use std::{
    fs,
    path::{Path, PathBuf},
};

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

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for page in pages(Path::new("."), &mut Vec::new()) {
        let directory = page.parent().unwrap();
        for link in links(&fs::read_to_string(page).unwrap()) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                _ => directory.join(path),
            };
            let is_heading = || {
                let text = fs::read_to_string(&target).unwrap_or_default();
                anchors(&text).any(|heading| heading == anchor)
            };
            if !target.exists() || !(anchor.is_empty() || is_heading()) {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn pages_are_at_most_200_lines() {
    for page in pages(Path::new("docs"), &mut Vec::new()) {
        let lines = fs::read_to_string(page).unwrap().lines().count();
        assert!(lines <= 200, "{}: {lines} lines", page.display());
    }
}

/// The Markdown pages in a directory and below it, without what a build makes.
fn pages<'a>(directory: &Path, pages: &'a mut Vec<PathBuf>) -> &'a [PathBuf] {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        let is_ours = !name.starts_with('.') && name != "target" && name != "fixtures";
        if path.is_dir() && is_ours {
            self::pages(&path, pages);
        } else if name.ends_with(".md") {
            pages.push(path);
        }
    }
    pages
}

/// The targets of the links and images of a page that are no URLs.
fn links(page: &str) -> Vec<String> {
    prose(page)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.contains("://"))
        .map(str::to_owned)
        .collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> impl Iterator<Item = String> {
    let headings = prose(page).filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        text.chars()
            .filter(kept)
            .collect::<String>()
            .replace(' ', "-")
    })
}

/// The lines of a page outside its blocks of code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        code ^= is_fence;
        !code && !is_fence
    })
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

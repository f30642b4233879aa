//! The documentation matches the repository: its programs, its links, and the tests that it names.
//!
//! `tests/e2e/tests/newcomer.rs` follows the README's instructions.

use std::{
    fs,
    path::{Path, PathBuf},
};

const README: &str = include_str!("../../README.md");

/// Returns the first code block of the README that has this info string.
fn block(fence: &str) -> &'static str {
    let (_, rest) = README
        .split_once(&format!("```{fence}\n"))
        .expect("a block");
    rest.split("```").next().expect("its end")
}

#[test]
fn the_readme_program_is_the_example() {
    let example = include_str!("../../examples/postgres/examples/readme.rs");
    let (_, program) = example.split_once("\n\n").expect("a header");
    assert_eq!(block("rust,ignore"), program);
}

#[test]
fn pages_of_other_servers_have_the_code_of_examples() {
    let grpc = include_str!("../../examples/grpc/src/main.rs");
    let actix = include_str!("../../examples/frameworks/src/bin/actix.rs");
    let axum = include_str!("../../examples/frameworks/src/bin/axum07.rs");
    let poem = include_str!("../../examples/frameworks/src/bin/poem.rs");
    let hyper = include_str!("../../examples/frameworks/src/bin/hyper.rs");
    let blocking = include_str!("../../examples/blocking.rs");
    let pages = [
        (include_str!("../../docs/https-grpc.md"), &[grpc][..]),
        (
            include_str!("../../docs/frameworks.md"),
            &[actix, axum, poem, hyper, blocking, blocking],
        ),
    ];
    for (page, examples) in pages {
        let blocks = page.split("```rust,ignore\n").skip(1);
        let blocks: Vec<_> = blocks.filter_map(|rest| rest.split("```").next()).collect();
        assert_eq!(blocks.len(), examples.len());
        for (block, example) in blocks.into_iter().zip(examples) {
            assert!(example.contains(block), "{block}");
        }
    }
}

#[test]
fn the_page_of_metrics_has_the_code_and_the_alerts_of_examples() {
    let page = include_str!("../../docs/metrics.md");
    let block = |fence| {
        let rest = page.split_once(fence).expect("a block").1;
        rest.split("```").next().expect("its end")
    };
    let example = include_str!("../../examples/metrics.rs");
    assert!(example.ends_with(block("```rust,ignore\n")));
    let alerts = include_str!("../../examples/deploy/monitors/alerts.yaml");
    assert!(alerts.ends_with(block("```yaml\n")));
}

#[test]
fn pages_of_recipes_have_the_code_that_is_tested() {
    let trimmed = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let recipes = trimmed(include_str!("../../examples/recipes/src/lib.rs")).replace("pub ", "");
    for (page, count) in [
        (include_str!("../../docs/checks.md"), 8),
        (include_str!("../../docs/telemetry.md"), 2),
    ] {
        let blocks: Vec<_> = page.split("```rust,ignore\n").skip(1).collect();
        assert_eq!(blocks.len(), count);
        for block in blocks {
            let block = trimmed(block.split("```").next().expect("its end"));
            assert!(recipes.contains(&block), "{block}");
        }
    }
    let page = trimmed(include_str!("../../docs/life-cycle.md"));
    let (_, listeners) = page
        .split_once("let public = axum::serve(")
        .expect("a block");
    let (listeners, _) = listeners.split_once("\n# ").expect("its end");
    assert!(trimmed(include_str!("../../examples/recipes/src/main.rs")).contains(listeners));
}

#[test]
fn the_readme_has_the_healthcheck_of_the_dockerfile() {
    let words = |text: &'static str| {
        let (_, line) = text.split_once("HEALTHCHECK ").expect("a HEALTHCHECK");
        let words = line.split_whitespace().filter(|word| *word != "\\");
        let end = words.take_while(|word| !word.ends_with(']'));
        end.collect::<Vec<_>>()
    };
    let dockerfile = include_str!("../../Dockerfile");
    assert_eq!(words(block("dockerfile")), words(dockerfile));
}

#[test]
fn the_readme_has_at_most_150_lines() {
    assert!(README.lines().count() <= 150);
}

#[test]
fn the_variables_of_build_info_are_those_of_the_page() {
    let variables = |text: &'static str, start: &str| {
        let rows = text.lines().filter_map(|line| line.strip_prefix(start));
        let rows = rows.filter(|row| row.contains("LIFESIGN_"));
        // The columns are the value, and the variables of the service, of others and of vergen.
        let cells = rows.map(|row| row.split('|').take(4).map(str::trim).collect::<Vec<_>>());
        cells.collect::<Vec<_>>()
    };
    let page = variables(include_str!("../../docs/metadata.md"), "| ");
    assert_eq!(page.len(), 9);
    let item = variables(include_str!("../../src/build_info/sources.rs"), "/// | ");
    assert_eq!(page, item);
}

#[test]
fn adopting_it_in_a_service_adds_17_lines() {
    let page = include_str!("../../docs/adopting.md");
    let diffs = page.split("```diff\n").skip(1);
    let lines = diffs.flat_map(|diff| diff.split("```").next().expect("its end").lines());
    assert_eq!(lines.filter(|line| line.starts_with('+')).count(), 17);
}

#[test]
fn every_defence_in_security_md_names_a_test() {
    let security = include_str!("../../SECURITY.md");
    let tests: String = ["tests", "examples/tls/tests"]
        .iter()
        .flat_map(|directory| files(Path::new(directory), "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let rows = security.lines().filter(|line| line.starts_with("| "));
    // The first row is the table's header.
    for row in rows.skip(1) {
        let cell = row.split('|').nth(4).expect("four columns");
        let mut names = cell.split('`').skip(1).step_by(2).peekable();
        assert!(names.peek().is_some(), "no test: {row}");
        for name in names {
            let is_test = tests.contains(&format!("fn {name}("));
            assert!(is_test || Path::new(name).is_file(), "{name}");
        }
    }
}

/// A type has an example in its own documentation. A function is called in an example, which may be
/// that of its type.
#[test]
fn every_public_item_has_an_example() {
    let mut sources = files(Path::new("src"), "rs");
    sources.retain(|path| !path.ends_with("fuzzing.rs"));
    let texts = sources.iter().map(|path| fs::read_to_string(path).unwrap());
    let text = texts.collect::<Vec<_>>().join("\n");
    let (mut examples, mut is_example) = (String::new(), false);
    for line in text.lines() {
        let line = line.trim_start();
        let doc = line.strip_prefix("///").or(line.strip_prefix("//!"));
        is_example ^= doc.is_some_and(|doc| doc.starts_with(" ```"));
        examples += doc.filter(|_| is_example).unwrap_or_default();
    }

    let (mut missing, mut has_example) = (Vec::new(), false);
    for line in text.lines().map(str::trim_start) {
        let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let is_public = line.starts_with("pub ") || line.starts_with("macro_rules!");
        let kind = words
            .find(|word| ["struct", "enum", "trait", "type", "macro_rules", "fn"].contains(word));
        let name = words.find(|word| !word.is_empty()).unwrap_or_default();
        let shown = match kind {
            Some("fn") => examples.contains(&format!("{name}(")),
            _ => has_example,
        };
        if is_public && kind.is_some() && !shown && name != "__resolve" {
            missing.push(name.to_owned());
        }
        has_example &= line.starts_with("///") || line.starts_with('#');
        has_example |= line.starts_with("/// ```");
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn test_names_have_at_most_60_characters() {
    for path in files(Path::new("tests"), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines() {
            let name = line.trim_start().trim_start_matches("async ");
            let name = name
                .strip_prefix("fn ")
                .and_then(|rest| rest.split('(').next());
            let length = name.map_or(0, str::len);
            assert!(length <= 60, "{}: {length}: {line}", path.display());
        }
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for page in files(Path::new("."), "md") {
        let directory = page.parent().unwrap();
        for link in links(&fs::read_to_string(&page).unwrap()) {
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
    for page in files(Path::new("docs"), "md") {
        let lines = fs::read_to_string(&page).unwrap().lines().count();
        assert!(lines <= 200, "{}: {lines} lines", page.display());
    }
}

/// Returns all files with this extension below a directory. Skips build output, fixtures and hidden
/// directories.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        let skipped = name.starts_with('.') || name == "target" || name == "fixtures";
        if path.is_dir() && !skipped {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|ours| ours == extension) {
            found.push(path);
        }
    }
    found
}

/// Returns the targets of a page's links and images, except URLs.
fn links(page: &str) -> Vec<String> {
    prose(page)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.contains("://"))
        .map(str::to_owned)
        .collect()
}

/// Returns the anchors of a page's headings, as GitHub generates them.
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

/// Returns the lines of a page that are not in code blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        code ^= is_fence;
        !code && !is_fence
    })
}

//! Runs the scenarios of `support/scenarios.rs`, and checks the line that the probe prints about
//! each server.

use std::{env, fs, path::Path};

use crate::{
    command::{check, printed_line, run_probe},
    support::{
        hostile::{perform, responds, response},
        scenarios, serve,
    },
};

/// Generates a test for each table, with the table's name.
macro_rules! tests {
    ($($table:ident,)+) => {
        $(
            #[test]
            fn $table() {
                check(scenarios::$table());
            }
        )+

        #[test]
        fn the_pages_state_the_number_of_scenarios() {
            let count = 0 $(+ scenarios::$table().cases.len())+;
            for (page, phrase) in [
                (
                    "docs/comparison.md",
                    format!("{count} servers, most of them misbehaving"),
                ),
                ("docs/hostile.md", format!("{count} scenarios test the probe")),
            ] {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
                let text = fs::read_to_string(path).expect("a page");
                assert!(text.contains(&phrase), "{page}: {phrase}?");
            }
        }
    };
}

scenarios::for_each_table!(tests);

#[test]
fn another_status_word_is_printed_with_the_code() {
    for word in ["UP", "DOWN", "fail"] {
        let body = format!(r#"{{"status":"{word}"}}"#);
        let address = serve(|stream| perform(&responds(response("200 OK", body)), stream));
        let line = printed_line(&run_probe(&format!("http://{address}")));
        assert_eq!(line, format!("healthy: 200 {word} in # ms"));
    }
}

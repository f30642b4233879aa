//! For build scripts: finds the facts for [`build_info!`](crate::build_info!) that no environment
//! variable provides.
//!
//! A macro cannot read a git repository, so the service's build script does:
//!
//! ```toml
//! [dependencies]
//! lifesign = "0.1"
//!
//! [build-dependencies]
//! lifesign = { version = "0.1", default-features = false, features = ["build"] }
//! ```
//!
//! ```no_run
//! // build.rs
//! fn main() {
//!     lifesign::build::emit();
//! }
//! ```
//!
//! | fact | source |
//! |---|---|
//! | commit, dirty | `.cargo_vcs_info.json` in a packaged crate, otherwise git |
//! | describe, commit date | git |
//! | build date | `SOURCE_DATE_EPOCH` |
//! | compiler, target, profile | Cargo |
//!
//! Without a git program, or if git distrusts the repository's owner, the commit is read from the
//! files in `.git`. Describe, commit date and dirty are then unknown.
#![expect(
    clippy::needless_doctest_main,
    reason = "a build script needs its main function"
)]

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use commit::Commit;

mod commit;

/// Emits the facts about the package whose build script calls it.
///
/// It never fails a build: a fact that it cannot find is unknown. A repository that does not track
/// the package is ignored. Cargo runs the script again when the commit, the branch or a tag
/// changes, and when the tree becomes dirty or clean. Cargo does not notice that a deleted file was
/// restored without git.
///
/// ```no_run
/// // build.rs of a service that also watches its migrations
/// println!("cargo::rerun-if-changed=migrations");
/// lifesign::build::emit();
/// ```
pub fn emit() {
    let Some(package) = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from) else {
        return;
    };
    let mut directives = Directives::default();
    let build_date = source_date(&mut directives);
    let commit = Commit::of(&package, &mut directives);

    // An unknown fact is emitted as an empty value. Otherwise, a build that a program under `cargo
    // run` starts would get the value of the program's package.
    for (fact, value) in [
        ("FOR", package.to_str().map(str::to_owned)),
        ("GIT_COMMIT", commit.hash),
        ("GIT_DESCRIBE", commit.describe),
        ("GIT_COMMIT_DATE", commit.date),
        ("GIT_DIRTY", commit.dirty.map(|dirty| dirty.to_string())),
        ("BUILD_DATE", build_date),
        ("RUSTC", rustc_version()),
        ("TARGET", env::var("TARGET").ok()),
        ("PROFILE", env::var("PROFILE").ok()),
    ] {
        let value = value.unwrap_or_default();
        directives.add("rustc-env", &format!("LIFESIGN_EMITTED_{fact}={value}"));
    }
    // This fails only if Cargo has stopped reading, and then nobody needs the facts.
    let _ = io::stdout().write_all(directives.0.as_bytes());
}

/// The lines that a build script prints for Cargo.
///
/// They begin with `cargo:`, because Cargo rejects the newer `cargo::` if the service's
/// `rust-version` is below 1.77.
#[derive(Default)]
struct Directives(String);

impl Directives {
    fn add(&mut self, key: &str, value: &str) {
        // A line break would begin another directive.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        self.0.push_str(&format!("cargo:{key}={value}\n"));
    }

    /// Makes Cargo run the script again when the path changes. A missing path is left out, because
    /// it would make Cargo run the script in every build.
    fn watch(&mut self, path: &Path) {
        if path.exists() {
            self.add("rerun-if-changed", &path.to_string_lossy());
        }
    }
}

fn source_date(directives: &mut Directives) -> Option<String> {
    directives.add("rerun-if-env-changed", "SOURCE_DATE_EPOCH");
    let value = env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty())?;
    let date = value.to_str().and_then(rfc3339);
    if date.is_none() {
        let warning = "SOURCE_DATE_EPOCH is not a number of seconds since 1970 and is ignored";
        directives.add("warning", warning);
    }
    date
}

fn rustc_version() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?)
        .arg("--version")
        .output();
    let line = String::from_utf8(output.ok()?.stdout).ok()?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

/// Formats seconds since 1970 as a date in RFC 3339, in UTC. Returns `None` after the year 9999.
fn rfc3339(seconds: &str) -> Option<String> {
    const DAYS_BEFORE_1970: u64 = 719_468; // from 1 March of the year 0
    const CENTURY: u64 = 146_097; // average length in quarters of a day
    const YEAR: u64 = 1_461; // average length within a century in quarters of a day
    const FIVE_MONTHS: u64 = 153; // length in days of March to July, and of August to December

    let seconds: u64 = seconds.parse().ok()?;
    if seconds > 253_402_300_799 {
        return None;
    }
    // This computes with years that begin in March, so that a leap day is the last day of its year.
    let quarters = 4 * (seconds / 86_400 + DAYS_BEFORE_1970) + 3;
    let century = quarters / CENTURY;
    let quarters = quarters % CENTURY / 4 * 4 + 3;
    let year = 100 * century + quarters / YEAR;
    let day = quarters % YEAR / 4;
    let month = (5 * day + 2) / FIVE_MONTHS;
    let day = day - (FIVE_MONTHS * month + 2) / 5 + 1;
    let (year, month) = (year + month / 10, (month + 2) % 12 + 1);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    Some(format!(
        "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    ))
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn seconds_become_a_date() {
        for (seconds, date) in [
            ("0", Some("1970-01-01T00:00:00Z")),
            ("951782399", Some("2000-02-28T23:59:59Z")),
            ("951782400", Some("2000-02-29T00:00:00Z")),
            ("1709251199", Some("2024-02-29T23:59:59Z")),
            ("1795473060", Some("2026-11-23T22:31:00Z")),
            ("4107542400", Some("2100-03-01T00:00:00Z")),
            ("253402300799", Some("9999-12-31T23:59:59Z")),
            ("253402300800", None),
            ("-1", None),
            ("now", None),
        ] {
            assert_eq!(rfc3339(seconds).as_deref(), date, "{seconds}");
        }
    }
}

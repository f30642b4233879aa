//! For build scripts: tells [`build_info!`](crate::build_info!) what no variable says.
//!
//! A library cannot read the git of the service that uses it, but the service's build script can:
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
//! | commit, dirty | git, or else the `.cargo_vcs_info.json` of a packaged crate |
//! | describe, commit date | git |
//! | build date | `SOURCE_DATE_EPOCH` |
//! | compiler, target, profile | Cargo |
//!
//! Without a git program, or where git distrusts the owner, the commit is read from git's files.
#![expect(
    clippy::needless_doctest_main,
    reason = "a build script is not one without it"
)]

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use commit::Commit;

mod commit;

/// Emits the facts about the package whose build script calls it.
///
/// It never fails a build: what cannot be found is unknown. A repository that is merely around
/// the package, without tracking it, is not asked. Cargo runs the script again when a commit,
/// branch or tag changes, when a clean tree is edited, and when a dirty one may be clean again: by
/// git, or by an edit. A deleted file that is put back without git is noticed with the next of those.
pub fn emit() {
    let Some(package) = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from) else {
        return;
    };
    // Started first and awaited last: it takes longer than all that git is asked.
    let rustc = env::var_os("RUSTC").and_then(|rustc| {
        Command::new(rustc)
            .arg("--version")
            .stdout(Stdio::piped())
            .spawn()
            .ok()
    });

    let mut script = Script::default();
    let build_date = script.source_date();
    let commit = Commit::of(&package, &mut script).unwrap_or_default();
    let rustc = rustc
        .and_then(|rustc| String::from_utf8(rustc.wait_with_output().ok()?.stdout).ok())
        .and_then(|line| Some(line.split_whitespace().nth(1)?.to_owned()));

    // What is unknown is emitted too, as empty: it hides what an outer `cargo run` passes on.
    for (fact, value) in [
        ("FOR", package.to_str().map(str::to_owned)),
        ("GIT_COMMIT", commit.hash),
        ("GIT_DESCRIBE", commit.describe),
        ("GIT_COMMIT_DATE", commit.date),
        ("GIT_DIRTY", commit.dirty.map(|dirty| dirty.to_string())),
        ("BUILD_DATE", build_date),
        ("RUSTC", rustc),
        ("TARGET", env::var("TARGET").ok()),
        ("PROFILE", env::var("PROFILE").ok()),
    ] {
        let value = value.unwrap_or_default();
        script.say("rustc-env", &format!("LIFESIGN_EMITTED_{fact}={value}"));
    }
    // If Cargo has stopped listening, there is nobody to tell.
    let _ = io::stdout().write_all(script.0.as_bytes());
}

/// What Cargo is told.
///
/// With one colon: Cargo rejects `cargo::` where the service's `rust-version` is below 1.77.
#[derive(Default)]
struct Script(String);

impl Script {
    fn say(&mut self, directive: &str, value: &str) {
        // A line break would begin another directive.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        self.0.push_str(&format!("cargo:{directive}={value}\n"));
    }

    /// Only what exists: for a path that does not, Cargo would run the script each time.
    fn watch(&mut self, path: &Path) {
        if path.exists() {
            self.say("rerun-if-changed", &path.to_string_lossy());
        }
    }

    fn source_date(&mut self) -> Option<String> {
        self.say("rerun-if-env-changed", "SOURCE_DATE_EPOCH");
        let value = env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty())?;
        let date = value.to_str().and_then(rfc3339);
        if date.is_none() {
            let warning = "SOURCE_DATE_EPOCH is not a number of seconds since 1970 and is ignored";
            self.say("warning", warning);
        }
        date
    }
}

/// Formats seconds since 1970 as a date in UTC, up to the year 9999.
fn rfc3339(seconds: &str) -> Option<String> {
    const DAYS_BEFORE_1970: u64 = 719_468; // since 1 March of the year 0
    const FOUR_CENTURIES: u64 = 146_097;
    const FOUR_YEARS: u64 = 1_461;
    const FIVE_MONTHS: u64 = 153;

    let seconds: u64 = seconds.parse().ok()?;
    if seconds > 253_402_300_799 {
        return None;
    }
    // Years and months are counted from March, which puts the leap day at the end. In quarters of a
    // day, centuries and years have a constant length on average, and division finds them.
    let quarters = 4 * (seconds / 86_400 + DAYS_BEFORE_1970) + 3;
    let century = quarters / FOUR_CENTURIES;
    let quarters = quarters % FOUR_CENTURIES / 4 * 4 + 3;
    let year = 100 * century + quarters / FOUR_YEARS;
    let day = quarters % FOUR_YEARS / 4;
    let month = (5 * day + 2) / FIVE_MONTHS;
    let day = day - (FIVE_MONTHS * month + 2) / 5 + 1;
    let (year, month) = if month < 10 {
        (year, month + 3)
    } else {
        (year + 1, month - 9)
    };
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

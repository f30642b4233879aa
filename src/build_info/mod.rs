//! Build metadata: facts about a binary that are fixed when it is compiled.

use std::fmt;

mod sources;

/// Name, version, commit and dates of a binary, from [`build_info!`](crate::build_info!).
///
/// A value that no source provides at compile time is unknown. Describe, commit date and dirty are
/// never those of another commit. `Display` prints one line: the name, the version, and the commit
/// and the date if they are known:
///
/// ```
/// const BUILD: lifesign::BuildInfo = lifesign::build_info!();
///
/// println!("{BUILD}"); // my-service 1.4.2 (3f2a91c0d1e2, 2026-11-23)
/// assert_eq!(BUILD.version(), env!("CARGO_PKG_VERSION"));
///
/// println!("{} from {}", BUILD.name(), BUILD.commit().unwrap_or("no commit"));
/// for (fact, value) in [
///     ("describe", BUILD.describe()),
///     ("commit date", BUILD.commit_date()),
///     ("build date", BUILD.build_date()),
///     ("compiler", BUILD.rustc()),
///     ("target", BUILD.target()),
///     ("profile", BUILD.profile()),
/// ] {
///     println!("{fact}: {}", value.unwrap_or("unknown"));
/// }
/// if BUILD.dirty() == Some(true) {
///     println!("built from files that are not committed");
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    name: &'static str,
    version: &'static str,
    commit: Option<&'static str>,
    describe: Option<&'static str>,
    commit_date: Option<&'static str>,
    build_date: Option<&'static str>,
    dirty: Option<bool>,
    rustc: Option<&'static str>,
    target: Option<&'static str>,
    profile: Option<&'static str>,
}

impl BuildInfo {
    /// The name of the binary, or of the package if the macro is in a library.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The version from `LIFESIGN_VERSION` or `VERSION`, otherwise the package's. Never empty.
    #[must_use]
    pub const fn version(&self) -> &'static str {
        self.version
    }

    /// The hash of the git commit. An environment variable can also set an abbreviated hash.
    ///
    /// Unknown if no variable is set, the package has no `.cargo_vcs_info.json`, and no git
    /// repository tracks the package.
    #[must_use]
    pub const fn commit(&self) -> Option<&'static str> {
        self.commit
    }

    /// The output of `git describe --tags --always`: the last tag, and the number of commits since.
    ///
    /// Without a reachable tag, as in a shallow clone, this is the abbreviated commit.
    #[must_use]
    pub const fn describe(&self) -> Option<&'static str> {
        self.describe
    }

    /// The time of the commit, usually in RFC 3339 and UTC: `2026-11-23T18:31:00Z`.
    #[must_use]
    pub const fn commit_date(&self) -> Option<&'static str> {
        self.commit_date
    }

    /// The time of the build from environment variables, usually in RFC 3339.
    ///
    /// This crate never reads the clock, because two builds of one commit would then differ. vergen
    /// reads the clock unless `SOURCE_DATE_EPOCH` is set.
    #[must_use]
    pub const fn build_date(&self) -> Option<&'static str> {
        self.build_date
    }

    /// Whether a tracked file of the repository differs from the commit.
    #[must_use]
    pub const fn dirty(&self) -> Option<bool> {
        self.dirty
    }

    /// The version of the compiler: `1.95.0`.
    #[must_use]
    pub const fn rustc(&self) -> Option<&'static str> {
        self.rustc
    }

    /// The target triple: `x86_64-unknown-linux-musl`.
    #[must_use]
    pub const fn target(&self) -> Option<&'static str> {
        self.target
    }

    /// The profile, `debug` or `release`. For a custom profile, the one it inherits from.
    #[must_use]
    pub const fn profile(&self) -> Option<&'static str> {
        self.profile
    }
}

impl fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dirty = if self.dirty == Some(true) {
            "-dirty"
        } else {
            ""
        };
        write!(f, "{} {}", self.name, self.version)?;
        match (self.commit, self.commit_date.or(self.build_date)) {
            (Some(commit), Some(date)) => {
                write!(f, " ({}{dirty}, {})", abbreviate(commit), day(date))
            }
            (Some(commit), None) => write!(f, " ({}{dirty})", abbreviate(commit)),
            (None, Some(date)) => write!(f, " ({})", day(date)),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(feature = "core")]
impl serde::Serialize for BuildInfo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;

        fn entry<M: SerializeMap>(
            map: &mut M,
            key: &str,
            value: Option<impl serde::Serialize>,
        ) -> Result<(), M::Error> {
            value.map_or(Ok(()), |value| map.serialize_entry(key, &value))
        }

        let mut map = serializer.serialize_map(None)?;
        entry(&mut map, "name", Some(self.name))?;
        entry(&mut map, "version", Some(self.version))?;
        entry(&mut map, "commit", self.commit)?;
        entry(&mut map, "describe", self.describe)?;
        entry(&mut map, "commitDate", self.commit_date)?;
        entry(&mut map, "buildDate", self.build_date)?;
        entry(&mut map, "dirty", self.dirty)?;
        entry(&mut map, "rustc", self.rustc)?;
        entry(&mut map, "target", self.target)?;
        entry(&mut map, "profile", self.profile)?;
        map.end()
    }
}

/// Returns the first twelve digits of a hash, and any other text unchanged.
fn abbreviate(commit: &str) -> &str {
    match commit.get(..12) {
        Some(start) if commit.bytes().all(|byte| byte.is_ascii_hexdigit()) => start,
        _ => commit,
    }
}

/// Returns the day of an RFC 3339 date, and any other text unchanged.
fn day(date: &str) -> &str {
    match date.split_once('T') {
        Some((day, _)) if day.len() == 10 => day,
        _ => date,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: BuildInfo = BuildInfo {
        name: "my-service",
        version: "1.4.2",
        commit: Some("3f2a91c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6"),
        describe: Some("v1.4.2"),
        commit_date: Some("2026-11-23T18:31:00Z"),
        build_date: Some("2026-11-24T08:00:00Z"),
        dirty: Some(false),
        rustc: Some("1.95.0"),
        target: Some("x86_64-unknown-linux-musl"),
        profile: Some("release"),
    };

    const UNKNOWN: BuildInfo = BuildInfo::__resolve(
        [Some("my-service"), None, Some("1.4.2"), None, None],
        [[None; 5]; 9],
    );

    #[test]
    fn displays_one_line_without_unknown_values() {
        let mut dirty = KNOWN;
        dirty.dirty = Some(true);
        let mut dated = UNKNOWN;
        dated.build_date = KNOWN.build_date;
        let mut free_text = UNKNOWN;
        free_text.commit = Some("release-candidate");
        free_text.build_date = Some("Monday morning");

        for (info, line) in [
            (KNOWN, "my-service 1.4.2 (3f2a91c0d1e2, 2026-11-23)"),
            (dirty, "my-service 1.4.2 (3f2a91c0d1e2-dirty, 2026-11-23)"),
            (dated, "my-service 1.4.2 (2026-11-24)"),
            (
                free_text,
                "my-service 1.4.2 (release-candidate, Monday morning)",
            ),
            (UNKNOWN, "my-service 1.4.2"),
        ] {
            assert_eq!(info.to_string(), line);
        }
    }

    #[cfg(feature = "core")]
    #[test]
    fn serializes_known_values() {
        assert_eq!(
            serde_json::to_string(&KNOWN).unwrap(),
            concat!(
                r#"{"name":"my-service","version":"1.4.2","#,
                r#""commit":"3f2a91c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6","describe":"v1.4.2","#,
                r#""commitDate":"2026-11-23T18:31:00Z","buildDate":"2026-11-24T08:00:00Z","#,
                r#""dirty":false,"rustc":"1.95.0","target":"x86_64-unknown-linux-musl","#,
                r#""profile":"release"}"#
            )
        );
        assert_eq!(
            serde_json::to_string(&UNKNOWN).unwrap(),
            r#"{"name":"my-service","version":"1.4.2"}"#
        );
    }
}

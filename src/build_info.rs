//! Build metadata: the facts about a binary that are fixed when it is compiled.

use std::fmt;

/// Name, version, commit and dates of a binary, from [`build_info!`](crate::build_info!).
///
/// A value that no source provides at compile time is unknown. Values of two commits are never
/// mixed: describe, commit date and dirty never come from a source that names another commit. The
/// metadata prints as one line, without the unknown values:
///
/// ```
/// const BUILD: lifesign::BuildInfo = lifesign::build_info!();
///
/// println!("{BUILD}"); // my-service 1.4.2 (3f2a91c0d1e2, 2026-11-23)
/// assert_eq!(BUILD.version(), env!("CARGO_PKG_VERSION"));
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

    /// The version in the build's variables, otherwise the package's. Never empty.
    #[must_use]
    pub const fn version(&self) -> &'static str {
        self.version
    }

    /// The hash of the git commit, abbreviated only if a variable of the build abbreviates it.
    ///
    /// Unknown if the repository around the package does not track it.
    #[must_use]
    pub const fn commit(&self) -> Option<&'static str> {
        self.commit
    }

    /// The output of `git describe --tags --always`: the last tag, and the commits since.
    ///
    /// Without a reachable tag, as in a shallow clone, this is the abbreviated commit.
    #[must_use]
    pub const fn describe(&self) -> Option<&'static str> {
        self.describe
    }

    /// The time of the commit, in RFC 3339 and UTC: `2026-11-23T18:31:00Z`.
    #[must_use]
    pub const fn commit_date(&self) -> Option<&'static str> {
        self.commit_date
    }

    /// The time of the build as its variables state it, usually in RFC 3339.
    ///
    /// This crate never reads the clock: the time would be outdated after an incremental build, and
    /// two builds of one commit would differ. vergen reads it unless `SOURCE_DATE_EPOCH` is set.
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

    /// The profile: `debug` or `release`. A custom profile has the one that it inherits from.
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

/// Creates the [`BuildInfo`] of the package that contains the call, as a constant.
///
/// Call it in the binary: in a library it describes the library. It reads the following variables
/// when the package is compiled, and Cargo compiles the package again when one of them changes. The
/// first that is set and not empty wins. Its value ends at the first control character.
///
/// | fact | the service's own | common | [vergen]'s | then |
/// |---|---|---|---|---|
/// | version | `LIFESIGN_VERSION` | `VERSION` | | the package's |
/// | commit | `LIFESIGN_GIT_COMMIT` | `GIT_COMMIT` | `VERGEN_GIT_SHA` | `emit()` |
/// | describe | `LIFESIGN_GIT_DESCRIBE` | | `VERGEN_GIT_DESCRIBE` | `emit()` |
/// | commit date | `LIFESIGN_GIT_COMMIT_DATE` | | `VERGEN_GIT_COMMIT_TIMESTAMP`, `…_DATE` | `emit()` |
/// | dirty | `LIFESIGN_GIT_DIRTY` | | `VERGEN_GIT_DIRTY` | `emit()` |
/// | build date | `LIFESIGN_BUILD_DATE` | `BUILD_DATE` | `VERGEN_BUILD_TIMESTAMP`, `…_DATE` | `emit()` |
/// | compiler | `LIFESIGN_RUSTC` | | `VERGEN_RUSTC_SEMVER` | `emit()` |
/// | target | `LIFESIGN_TARGET` | | `VERGEN_CARGO_TARGET_TRIPLE` | `emit()` |
/// | profile | `LIFESIGN_PROFILE` | | | `emit()` |
///
/// So the arguments of a container build need no build script, and a service whose build script
/// runs vergen needs nothing else. `emit()` is `lifesign::build::emit()`, which the service's
/// `build.rs` calls.
///
/// ```
/// static BUILD: lifesign::BuildInfo = lifesign::build_info!();
///
/// if std::env::args().nth(1).as_deref() == Some("--version") {
///     println!("{BUILD}");
/// }
/// ```
///
/// [vergen]: https://docs.rs/vergen
#[macro_export]
macro_rules! build_info {
    () => {
        $crate::build_info! {
            VERSION [VERSION _ _]
            GIT_COMMIT [GIT_COMMIT VERGEN_GIT_SHA VERGEN_GIT_SHA]
            GIT_DESCRIBE [_ VERGEN_GIT_DESCRIBE _]
            GIT_COMMIT_DATE [_ VERGEN_GIT_COMMIT_TIMESTAMP VERGEN_GIT_COMMIT_DATE]
            GIT_DIRTY [_ VERGEN_GIT_DIRTY _]
            BUILD_DATE [BUILD_DATE VERGEN_BUILD_TIMESTAMP VERGEN_BUILD_DATE]
            RUSTC [_ VERGEN_RUSTC_SEMVER _]
            TARGET [_ VERGEN_CARGO_TARGET_TRIPLE _]
            PROFILE [_ _ _]
        }
    };
    ($($fact:ident [$($variable:tt)*])*) => {
        const {
            $crate::BuildInfo::__resolve(
                [
                    ::core::option_env!("CARGO_BIN_NAME"),
                    ::core::option_env!("CARGO_PKG_NAME"),
                    ::core::option_env!("CARGO_PKG_VERSION"),
                    ::core::option_env!("CARGO_MANIFEST_DIR"),
                    ::core::option_env!("LIFESIGN_EMITTED_FOR"),
                ],
                [$([
                    $crate::build_info!(@variable "LIFESIGN_" $fact),
                    $($crate::build_info!(@variable "" $variable),)*
                    $crate::build_info!(@variable "LIFESIGN_EMITTED_" $fact),
                ]),*],
            )
        }
    };
    (@variable $prefix:literal _) => { ::core::option::Option::None };
    (@variable $prefix:literal $name:ident) => {
        ::core::option_env!(::core::concat!($prefix, ::core::stringify!($name)))
    };
}

impl BuildInfo {
    /// Chooses a source for each fact, for [`build_info!`](crate::build_info!) alone.
    #[doc(hidden)]
    #[must_use]
    pub const fn __resolve(
        [bin, package, version, directory, emitted_for]: [Option<&'static str>; 5],
        mut facts: [Sources; 9],
    ) -> Self {
        // `cargo run` and `cargo test` pass the facts of their package on. A build of another
        // package that is started from there has to ignore them.
        let emitted_here = matches!(
            (directory, emitted_for),
            (Some(own), Some(other)) if own.len() == other.len() && starts_with(own, other)
        );
        let mut fact = 0;
        while !emitted_here && fact < facts.len() {
            facts[fact][EMITTED] = None;
            fact += 1;
        }

        let [
            versions,
            commits,
            describes,
            commit_dates,
            dirties,
            build_dates,
            compilers,
            targets,
            profiles,
        ] = facts;
        let commit = first_set(commits);
        Self {
            name: or_unknown(first_set([bin, package])),
            version: or_unknown(first_set([first_set(versions), version])),
            commit,
            describe: first_set(of_commit(commit, commits, describes)),
            commit_date: first_set(of_commit(commit, commits, commit_dates)),
            build_date: first_set(build_dates),
            dirty: parse_bool(first_set(of_commit(commit, commits, dirties))),
            rustc: first_set(compilers),
            target: first_set(targets),
            profile: first_set(profiles),
        }
    }
}

/// The values of one fact by source, in order of precedence.
type Sources = [Option<&'static str>; 5];

/// Index of the source that is `build::emit()`.
const EMITTED: usize = 4;

/// The first value that is set and not empty.
const fn first_set<const N: usize>(values: [Option<&'static str>; N]) -> Option<&'static str> {
    let mut source = 0;
    while source < N {
        if let Some(value) = values[source]
            && let Some(value) = normalize(value)
        {
            return Some(value);
        }
        source += 1;
    }
    None
}

/// Drops the values of sources that name another commit. A source has the same index in both lists.
const fn of_commit(commit: Option<&'static str>, commits: Sources, mut values: Sources) -> Sources {
    let mut source = 0;
    while source < values.len() {
        if let (Some(commit), Some(other)) = (commit, first_set([commits[source]]))
            && !starts_with(commit, other)
            && !starts_with(other, commit)
        {
            values[source] = None;
        }
        source += 1;
    }
    values
}

/// The value up to its first control character, without surrounding spaces, if anything is left.
const fn normalize(value: &'static str) -> Option<&'static str> {
    let value = value.trim_ascii();
    let mut end = 0;
    while end < value.len() && !value.as_bytes()[end].is_ascii_control() {
        end += 1;
    }
    let value = value.split_at(end).0.trim_ascii();
    match value.as_bytes() {
        b"" | b"VERGEN_IDEMPOTENT_OUTPUT" => None,
        _ => Some(value),
    }
}

const fn or_unknown(value: Option<&'static str>) -> &'static str {
    match value {
        Some(value) => value,
        None => "unknown",
    }
}

const fn parse_bool(value: Option<&str>) -> Option<bool> {
    let Some(value) = value else {
        return None;
    };
    match value.as_bytes() {
        b"true" | b"1" => Some(true),
        b"false" | b"0" => Some(false),
        _ => None,
    }
}

const fn starts_with(value: &str, prefix: &str) -> bool {
    let (value, prefix) = (value.as_bytes(), prefix.as_bytes());
    let mut at = 0;
    while at < prefix.len() {
        if at >= value.len() || value[at] != prefix[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The first twelve digits of a hash. Any other text stays as it is.
fn abbreviate(commit: &str) -> &str {
    match commit.get(..12) {
        Some(start) if commit.bytes().all(|byte| byte.is_ascii_hexdigit()) => start,
        _ => commit,
    }
}

/// The day of an RFC 3339 date. Any other text stays as it is.
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

    #[test]
    fn a_value_ends_at_its_first_control_character() {
        for (given, value) in [
            (" 1.0\ncargo::rustc-env=A=b", Some("1.0")),
            ("1.0 \u{1b}[31m", Some("1.0")),
            ("größe\u{a0}", Some("größe\u{a0}")),
            (" \r\n", None),
            ("VERGEN_IDEMPOTENT_OUTPUT", None),
        ] {
            assert_eq!(normalize(given), value, "{given:?}");
        }
    }

    #[test]
    fn dirty_is_a_boolean_or_a_digit() {
        for (given, value) in [
            ("true", Some(true)),
            ("1", Some(true)),
            ("false", Some(false)),
            ("0", Some(false)),
            ("yes", None),
        ] {
            assert_eq!(parse_bool(Some(given)), value, "{given}");
        }
    }
}

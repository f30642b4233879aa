//! Build metadata: the facts about a binary that are fixed when it is compiled.

use std::fmt;

/// What a binary knows about its own build, from [`build_info!`](crate::build_info!).
///
/// What nobody said at compile time is unknown rather than guessed, and facts are not mixed: the
/// description, the date and the dirty flag come only from a source that means the same commit.
/// It prints as one line that leaves out what is unknown:
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
    /// The name of the binary, or of the package where the macro stands in a library.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The version that the build was given, otherwise the package's. Never empty.
    #[must_use]
    pub const fn version(&self) -> &'static str {
        self.version
    }

    /// The git commit: the whole hash, unless the build was given a short one.
    ///
    /// Unknown where the package is not tracked by the repository around it.
    #[must_use]
    pub const fn commit(&self) -> Option<&'static str> {
        self.commit
    }

    /// What `git describe --tags --always` says: the last tag and the way from it.
    ///
    /// The abbreviated commit where no tag can be reached, as in a shallow clone.
    #[must_use]
    pub const fn describe(&self) -> Option<&'static str> {
        self.describe
    }

    /// When the commit was made, in RFC 3339 and UTC: `2026-11-23T18:31:00Z`.
    #[must_use]
    pub const fn commit_date(&self) -> Option<&'static str> {
        self.commit_date
    }

    /// When the build was made, in RFC 3339, as it was given: `2026-11-23T18:31:00Z`.
    ///
    /// Never the clock's time, unless vergen was told to take that: it goes stale in an incremental
    /// build, and two builds of one commit would differ.
    #[must_use]
    pub const fn build_date(&self) -> Option<&'static str> {
        self.build_date
    }

    /// Whether a tracked file of the repository differed from the commit.
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

    /// The profile: `debug` or `release`, or which of the two a custom profile inherits from.
    #[must_use]
    pub const fn profile(&self) -> Option<&'static str> {
        self.profile
    }

    /// For [`build_info!`](crate::build_info!) alone; the two change together.
    #[doc(hidden)]
    #[must_use]
    pub const fn __resolve(
        [bin, package, version, folder, emitted_for]: [Option<&'static str>; 5],
        mut facts: [Candidates; 9],
    ) -> Self {
        // `cargo run` and `cargo test` pass on what `emit()` said. A build that is started from
        // there, of another package, must not take it for its own.
        let emitted_here = match (folder, emitted_for) {
            (Some(folder), Some(emitted_for)) => same(folder, emitted_for),
            _ => false,
        };
        let mut fact = 0;
        while !emitted_here && fact < facts.len() {
            facts[fact][EMITTED] = None;
            fact += 1;
        }

        let [
            versions,
            commits,
            describes,
            dates,
            dirties,
            builds,
            rustcs,
            targets,
            profiles,
        ] = facts;
        let commit = first(commits);
        Self {
            name: or_unknown(first([bin, package])),
            version: or_unknown(first([first(versions), version])),
            commit,
            describe: first(about(commit, commits, describes)),
            commit_date: first(about(commit, commits, dates)),
            build_date: first(builds),
            dirty: flag(first(about(commit, commits, dirties))),
            rustc: first(rustcs),
            target: first(targets),
            profile: first(profiles),
        }
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
            (Some(commit), Some(date)) => write!(f, " ({}{dirty}, {})", short(commit), day(date)),
            (Some(commit), None) => write!(f, " ({}{dirty})", short(commit)),
            (None, Some(date)) => write!(f, " ({})", day(date)),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(feature = "core")]
impl serde::Serialize for BuildInfo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;

        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry("version", self.version)?;
        for (key, value) in [
            ("commit", self.commit),
            ("describe", self.describe),
            ("commitDate", self.commit_date),
            ("buildDate", self.build_date),
        ] {
            if let Some(value) = value {
                map.serialize_entry(key, value)?;
            }
        }
        if let Some(dirty) = self.dirty {
            map.serialize_entry("dirty", &dirty)?;
        }
        for (key, value) in [
            ("rustc", self.rustc),
            ("target", self.target),
            ("profile", self.profile),
        ] {
            if let Some(value) = value {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// The [`BuildInfo`] of the package in which it stands, as a constant.
///
/// Call it in the binary: in a library it describes the library. It reads these variables while
/// that package is compiled, and Cargo compiles the package again when one of them changes. The
/// first that is set and not empty counts, and of it what comes before a control character.
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
/// already runs vergen needs nothing else. `emit()` is `lifesign::build::emit()`, called in the
/// service's `build.rs`.
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
        const {
            $crate::BuildInfo::__resolve(
                [
                    ::core::option_env!("CARGO_BIN_NAME"),
                    ::core::option_env!("CARGO_PKG_NAME"),
                    ::core::option_env!("CARGO_PKG_VERSION"),
                    ::core::option_env!("CARGO_MANIFEST_DIR"),
                    ::core::option_env!("LIFESIGN_EMITTED_FOR"),
                ],
                [
                    $crate::build_info!(@fact VERSION VERSION _ _),
                    $crate::build_info!(@fact GIT_COMMIT GIT_COMMIT VERGEN_GIT_SHA VERGEN_GIT_SHA),
                    $crate::build_info!(@fact GIT_DESCRIBE _ VERGEN_GIT_DESCRIBE _),
                    $crate::build_info!(@fact GIT_COMMIT_DATE
                        _ VERGEN_GIT_COMMIT_TIMESTAMP VERGEN_GIT_COMMIT_DATE),
                    $crate::build_info!(@fact GIT_DIRTY _ VERGEN_GIT_DIRTY _),
                    $crate::build_info!(@fact BUILD_DATE
                        BUILD_DATE VERGEN_BUILD_TIMESTAMP VERGEN_BUILD_DATE),
                    $crate::build_info!(@fact RUSTC _ VERGEN_RUSTC_SEMVER _),
                    $crate::build_info!(@fact TARGET _ VERGEN_CARGO_TARGET_TRIPLE _),
                    $crate::build_info!(@fact PROFILE _ _ _),
                ],
            )
        }
    };
    (@fact $fact:ident $($variable:tt)*) => {
        [
            ::core::option_env!(::core::concat!("LIFESIGN_", ::core::stringify!($fact))),
            $($crate::build_info!(@variable $variable),)*
            ::core::option_env!(::core::concat!("LIFESIGN_EMITTED_", ::core::stringify!($fact))),
        ]
    };
    (@variable _) => { ::core::option::Option::None };
    (@variable $variable:ident) => { ::core::option_env!(::core::stringify!($variable)) };
}

/// What each source says of one fact, the most wanted first.
type Candidates = [Option<&'static str>; 5];

/// The source that is `build::emit()`.
const EMITTED: usize = 4;

/// The first value that says something.
const fn first<const N: usize>(candidates: [Option<&'static str>; N]) -> Option<&'static str> {
    let mut source = 0;
    while source < N {
        if let Some(value) = candidates[source]
            && let Some(value) = known(value)
        {
            return Some(value);
        }
        source += 1;
    }
    None
}

/// The candidates without those whose source means another commit.
const fn about(
    commit: Option<&'static str>,
    commits: Candidates,
    mut candidates: Candidates,
) -> Candidates {
    let mut source = 0;
    while source < candidates.len() {
        if let (Some(commit), Some(theirs)) = (commit, first([commits[source]]))
            && !starts_with(commit, theirs)
            && !starts_with(theirs, commit)
        {
            candidates[source] = None;
        }
        source += 1;
    }
    candidates
}

/// The value up to its first control character, without spaces around it.
const fn known(value: &'static str) -> Option<&'static str> {
    let value = value.trim_ascii();
    let bytes = value.as_bytes();
    let mut end = 0;
    while end < bytes.len() {
        // Terminals obey U+0080 to U+009F too, which are two bytes.
        let wide = bytes[end] == 0xc2 && bytes[end + 1] < 0xa0;
        if bytes[end].is_ascii_control() || wide {
            break;
        }
        end += 1;
    }
    let value = value.split_at(end).0.trim_ascii();
    if value.is_empty() || same(value, "VERGEN_IDEMPOTENT_OUTPUT") {
        None
    } else {
        Some(value)
    }
}

const fn or_unknown(value: Option<&'static str>) -> &'static str {
    match value {
        Some(value) => value,
        None => "unknown",
    }
}

const fn flag(value: Option<&str>) -> Option<bool> {
    match value {
        Some(value) if same(value, "true") || same(value, "1") => Some(true),
        Some(value) if same(value, "false") || same(value, "0") => Some(false),
        _ => None,
    }
}

const fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && starts_with(a, b)
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

/// The first twelve digits of a hash; anything else as it was given.
fn short(commit: &str) -> &str {
    match commit.get(..12) {
        Some(start) if commit.bytes().all(|byte| byte.is_ascii_hexdigit()) => start,
        _ => commit,
    }
}

/// The day of an RFC 3339 date; anything else as it was given.
fn day(date: &str) -> &str {
    match (date.as_bytes(), date.get(..10)) {
        ([_, _, _, _, b'-', _, _, b'-', ..], Some(day)) => day,
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

    const UNKNOWN: BuildInfo = BuildInfo {
        commit: None,
        describe: None,
        commit_date: None,
        build_date: None,
        dirty: None,
        rustc: None,
        target: None,
        profile: None,
        ..KNOWN
    };

    #[test]
    fn prints_one_line_without_what_is_unknown() {
        let dirty = BuildInfo {
            dirty: Some(true),
            ..KNOWN
        };
        let dated = BuildInfo {
            build_date: KNOWN.build_date,
            ..UNKNOWN
        };
        let free_text = BuildInfo {
            commit: Some("release-candidate"),
            build_date: Some("Monday morning"),
            ..UNKNOWN
        };

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
    fn serializes_what_is_known() {
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
            ("1.0\u{9b}31m", Some("1.0")),
            ("größe\u{a0}", Some("größe\u{a0}")),
            (" \r\n", None),
            ("VERGEN_IDEMPOTENT_OUTPUT", None),
        ] {
            assert_eq!(known(given), value, "{given:?}");
        }
    }
}

//! The variables that [`build_info!`](crate::build_info!) reads, and their order of precedence.

use super::BuildInfo;

/// Creates the [`BuildInfo`] of the package that contains the call, as a constant.
///
/// Call it in the binary: a call in a library describes the library. It reads the following
/// environment variables when the package is compiled, and Cargo compiles the package again when
/// one of them changes. For each fact, the first variable that is set and not empty wins. A value
/// ends at its first control character.
///
/// | fact | the service's own | common | [vergen]'s | otherwise |
/// |---|---|---|---|---|
/// | version | `LIFESIGN_VERSION` | `VERSION` | | the package's |
/// | commit | `LIFESIGN_GIT_COMMIT` | `GIT_COMMIT` | `VERGEN_GIT_SHA` | `emit()` |
/// | describe | `LIFESIGN_GIT_DESCRIBE` | | `VERGEN_GIT_DESCRIBE` | `emit()` |
/// | commit date | `LIFESIGN_GIT_COMMIT_DATE` | | `VERGEN_GIT_COMMIT_TIMESTAMP`, `VERGEN_GIT_COMMIT_DATE` | `emit()` |
/// | dirty | `LIFESIGN_GIT_DIRTY` | | `VERGEN_GIT_DIRTY` | `emit()` |
/// | build date | `LIFESIGN_BUILD_DATE` | `BUILD_DATE` | `VERGEN_BUILD_TIMESTAMP`, `VERGEN_BUILD_DATE` | `emit()` |
/// | compiler | `LIFESIGN_RUSTC` | | `VERGEN_RUSTC_SEMVER` | `emit()` |
/// | target | `LIFESIGN_TARGET` | | `VERGEN_CARGO_TARGET_TRIPLE` | `emit()` |
/// | profile | `LIFESIGN_PROFILE` | | | `emit()` |
///
/// `emit()` is `lifesign::build::emit()`, which the service's `build.rs` can call. A container
/// build that sets the variables needs no build script, and a build script that runs vergen needs
/// no `emit()`.
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
    /// Chooses a source for each fact. Only [`build_info!`](crate::build_info!) calls it.
    #[doc(hidden)]
    #[must_use]
    pub const fn __resolve(
        [bin, package, version, directory, emitted_for]: [Option<&'static str>; 5],
        mut facts: [Sources; 9],
    ) -> Self {
        // `cargo run` and `cargo test` pass the emitted facts of a package to its program. If the
        // program builds another package, `LIFESIGN_EMITTED_FOR` names the wrong directory there.
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

/// The values of one fact from each source, in order of precedence.
type Sources = [Option<&'static str>; 5];

/// The index of `build::emit` in [`Sources`].
const EMITTED: usize = 4;

/// Returns the first value that is set and not empty.
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

/// Drops each value whose source names a commit other than `commit`. A source has the same index in
/// `commits` and in `values`.
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

/// Returns the value up to its first control character, without surrounding spaces. Returns `None`
/// if the rest is empty, or is vergen's placeholder for an unknown value.
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

#[cfg(test)]
mod tests {
    use super::*;

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

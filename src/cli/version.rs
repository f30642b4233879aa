//! The `version` subcommand.

use std::{
    ffi::{OsStr, OsString},
    io,
};

use super::{
    UNHEALTHY,
    args::Invalid,
    output::{print, print_line},
};
use crate::BuildInfo;

pub(super) fn run(
    program: &OsStr,
    build: &BuildInfo,
    mut args: impl Iterator<Item = OsString>,
) -> u8 {
    let arg = args.next();
    let arg = arg.as_ref().map(|arg| arg.to_string_lossy());
    match (arg.as_deref(), args.next()) {
        (None, _) => print(&text(build)),
        (Some("--json"), None) => print(&(json(build) + "\n")),
        (Some("--help" | "-h"), None) => print(&help(program)),
        (Some("--json"), Some(more)) => refuse(&more.to_string_lossy()),
        (Some(unknown), _) => refuse(unknown),
    }
}

fn text(build: &BuildInfo) -> String {
    let mut text = format!("{} {}\n", build.name(), build.version());
    let dirty = build.dirty().map(|dirty| if dirty { "yes" } else { "no" });
    for (label, value) in [
        ("commit", build.commit()),
        ("describe", build.describe()),
        ("commit date", build.commit_date()),
        ("build date", build.build_date()),
        ("dirty", dirty),
        ("rustc", build.rustc()),
        ("target", build.target()),
        ("profile", build.profile()),
    ] {
        let value = value.unwrap_or("unknown");
        text.push_str(&format!("{label:<12}{value}\n"));
    }
    text
}

fn json(build: &BuildInfo) -> String {
    serde_json::to_string(build).expect("strings and booleans always become JSON")
}

fn help(program: &OsStr) -> String {
    format!(
        "Prints what this binary knows of its own build.\n\nUsage: {} version [--json]\n",
        program.display()
    )
}

fn refuse(arg: &str) -> u8 {
    let invalid = Invalid::argument(arg, &"unknown, expected --json or nothing");
    print_line(io::stderr(), format_args!("version: {invalid}"));
    UNHEALTHY
}

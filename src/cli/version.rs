//! The `version` subcommand.

use std::{
    ffi::{OsStr, OsString},
    io,
};

use super::{
    UNHEALTHY,
    args::InvalidInput,
    output::{print, print_line},
};
use crate::BuildInfo;

pub(super) fn run(program: &OsStr, build: &BuildInfo, args: impl Iterator<Item = OsString>) -> u8 {
    let args: Vec<_> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => print(&text(build)),
        ["--json"] => print(&(json(build) + "\n")),
        ["--help" | "-h"] => print(&help(program)),
        ["--json", arg, ..] | [arg, ..] => {
            let invalid = InvalidInput::unknown(arg, "--json, --help");
            print_line(io::stderr(), format_args!("version: {invalid}"));
            UNHEALTHY
        }
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
        "Prints the build metadata of this binary.\n\nUsage: {} version [--json]\n",
        program.display()
    )
}

//! What the end-to-end tests share.

#[path = "../../support/mod.rs"]
pub mod support;

/// The root of the repository.
pub const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A field of the crate's own Cargo.toml.
pub fn manifest_field(name: &str) -> String {
    let manifest = std::fs::read_to_string(format!("{REPOSITORY}/Cargo.toml")).expect("a manifest");
    let value = manifest.split(&format!("\n{name} = \"")).nth(1);
    let value = value.and_then(|rest| rest.split('"').next());
    value.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

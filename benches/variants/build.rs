//! Copies the reference service, so that other programs can `include!` it. Removes its crate
//! documentation, which `include!` does not permit, and renames `main`.

use std::{env, error::Error, fs, path::Path};

const SERVICE: &str = "../../examples/service.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={SERVICE}");
    let source = fs::read_to_string(SERVICE)?;
    assert!(source.contains("\nfn main() -> ExitCode {\n"));
    let source: Vec<_> = source
        .lines()
        .filter(|line| !line.starts_with("//!"))
        .map(|line| line.replace("fn main()", "fn service()"))
        .collect();
    let included = Path::new(&env::var("OUT_DIR")?).join("service.rs");
    fs::write(included, source.join("\n"))?;
    Ok(())
}

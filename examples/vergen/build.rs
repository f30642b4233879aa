//! Runs vergen. `build_info!()` reads its variables, so `lifesign::build::emit()` is not needed.

use std::error::Error;

use vergen_gitcl::{Cargo, Emitter, Gitcl, Rustc};

fn main() -> Result<(), Box<dyn Error>> {
    let git = Gitcl::builder()
        .sha(false)
        .describe(true, false, None)
        .commit_timestamp(true)
        .dirty(false)
        .build();
    let cargo = Cargo::builder().target_triple(true).build();
    let rustc = Rustc::builder().semver(true).build();

    Emitter::default()
        .add_instructions(&git)?
        .add_instructions(&cargo)?
        .add_instructions(&rustc)?
        .emit()?;
    Ok(())
}

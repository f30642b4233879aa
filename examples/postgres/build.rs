fn main() {
    lifesign::build::emit();
    // sqlx::migrate! includes these files in the binary.
    println!("cargo::rerun-if-changed=migrations");
}

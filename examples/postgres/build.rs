fn main() {
    lifesign::build::emit();
    // For sqlx::migrate!, which compiles the files in.
    println!("cargo::rerun-if-changed=migrations");
}

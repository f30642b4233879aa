fn main() {
    lifesign::build::emit();
    // sqlx::migrate! compiles these files in.
    println!("cargo::rerun-if-changed=migrations");
}

fn main() {
    lifesign::build::emit();
}

//! The reference service with a `main` that returns at once. It shows the cost of starting the
//! binary.

include!(concat!(env!("OUT_DIR"), "/service.rs"));

fn main() -> ExitCode {
    if std::hint::black_box(true) {
        return ExitCode::SUCCESS;
    }
    service()
}

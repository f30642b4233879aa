//! The reference service's binary with an empty `main`, for the cost of starting it.

include!(concat!(env!("OUT_DIR"), "/service.rs"));

fn main() -> ExitCode {
    if std::hint::black_box(true) {
        return ExitCode::SUCCESS;
    }
    service()
}

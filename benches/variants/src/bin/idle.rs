//! The binary of the reference service with an empty `main`. It shows what starting the binary
//! costs.

include!(concat!(env!("OUT_DIR"), "/service.rs"));

fn main() -> ExitCode {
    if std::hint::black_box(true) {
        return ExitCode::SUCCESS;
    }
    service()
}

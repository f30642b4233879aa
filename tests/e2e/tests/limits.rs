//! Limits on the cost of one `healthcheck`, in figures that do not depend on how busy the machine
//! is.
//!
//! The figures are those of a release build of the reference service for musl, as in its image. The
//! service is PID 1 of a container. `benches/` measures the time.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// The command that counts instructions without writing a profile.
const CALLGRIND: [&str; 3] = [
    "valgrind",
    "--tool=callgrind",
    "--callgrind-out-file=/dev/null",
];

/// Returns the least of nine measurements. On a busy machine, a probe receives a response in pieces,
/// which costs more instructions and system calls.
fn least<T: Ord>(measure: impl Fn() -> T) -> T {
    let least = (0..9).map(|_| measure()).min();
    least.expect("nine measurements")
}

#[test]
fn instructions_over_an_empty_main() {
    // Under valgrind, `/proc/self/exe` is valgrind. The service runs under valgrind too, because
    // the probe reads all advertisements if PID 1 runs another executable than the probe.
    let container = Container::start_under(&CALLGRIND);

    let empty = least(|| container.instructions("empty", &[]));
    let idle = least(|| container.instructions("idle", &[]));
    let probe = least(|| container.instructions("service", &["healthcheck"]));

    println!("instructions: empty main {empty}, in the service {idle}, probe {probe}");
    assert!(probe > idle && idle > empty);
    // The cost of starting the same binary, which is mostly relocation, is subtracted. 5,000 of the
    // instructions are for the value of `Lifesign-Instance`.
    assert!(probe - idle <= 27_000, "{}", probe - idle);
    // Relocation alone costs 34,000 instructions, and more in a larger service.
    assert!(probe - empty <= 63_000, "{}", probe - empty);
}

#[test]
fn system_calls_and_processes() {
    let container = Container::start();
    let trace = || {
        let output = container
            .enter(&["strace", "-f", "-qq", "-e", "signal=none"])
            .arg(program("service"))
            .arg("healthcheck")
            .output()
            .expect("strace starts");
        let calls = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{calls}");
        // `execve` is not counted, because it is a call of the parent process.
        (calls.lines().count() - 1, calls)
    };

    let (count, calls) = least(trace);

    println!("{count} system calls:\n{calls}");
    assert!(calls.starts_with("execve("), "{calls}");
    // benches/README.md lists these calls.
    assert!(count <= 40, "{count}:\n{calls}");
    for call in ["clone", "fork"] {
        assert!(
            !calls.contains(call),
            "the probe starts a process or thread:\n{calls}"
        );
    }
}

#[test]
fn page_faults_over_an_empty_main() {
    let container = Container::start();

    // The number of page faults depends on the addresses of mappings, and varies by one or two.
    let empty = least(|| container.page_faults("empty", &[]));
    let probe = least(|| container.page_faults("service", &["healthcheck"]));

    println!("page faults: empty main {empty}, probe {probe}");
    assert!(probe - empty <= 33, "{probe} - {empty}");
}

#[test]
fn peak_memory_and_threads() {
    // The kernel maps a varying number of pages around each fault. The measured figures were 992 to
    // 1,096 KiB.
    let memory = least(memory_of_a_waiting_probe);

    println!("peak memory: {memory} KiB");
    assert!(memory <= 1160, "{memory}");
}

#[test]
fn eight_mib_of_memory_and_64_kib_of_stack_are_enough() {
    let container = Container::start();
    // With a tenth of the memory the probe fails, which proves that the limit is in effect.
    for (kib, enough) in [(8192, true), (819, false)] {
        let limits = format!("ulimit -s 64 && ulimit -v {kib} && exec \"$@\"");
        let said = container
            .enter(&["sh", "-c", &limits, "sh"])
            .arg(program("service"))
            .arg("healthcheck")
            .output()
            .expect("sh starts");
        assert_eq!(said.status.success(), enough, "{kib} KiB: {said:?}");
    }
}

/// Returns the peak memory in KiB of a probe that has sent its request and waits for the response.
fn memory_of_a_waiting_probe() -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let mut probe = Command::new(program("service"))
        .args(["healthcheck", &format!("http://{address}")])
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let (mut stream, _) = listener.accept().expect("the probe connects");
    let read = stream.read(&mut [0; 1024]).expect("the probe asks");
    assert!(read > 0);

    let status = fs::read_to_string(format!("/proc/{}/status", probe.id()));
    let status = status.expect("the probe waits for a response");
    let number = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).expect("a number")
    };
    assert_eq!(number("Threads:"), 1);
    let memory = number("VmHWM:");
    drop(stream);
    assert_eq!(probe.wait().expect("it ends").code(), Some(1));
    memory
}

#[test]
fn bytes_added_to_the_binary() {
    let [plain, service] = ["plain", "service"].map(|name| loaded_bytes(&program(name)));

    println!("bytes: {plain} without the commands, {service} with them");
    // 7,000 bytes of the difference are for `--json`. The path of the checkout is in the binary.
    assert!(service - plain <= 90_000, "{}", service - plain);
}

/// Returns the number of bytes that the kernel loads from an executable: the sum of its segments'
/// sizes in the file.
fn loaded_bytes(path: &Path) -> u64 {
    const PROGRAM_HEADERS: usize = 32;
    const HEADER_SIZE: usize = 54;
    const HEADER_COUNT: usize = 56;
    const SEGMENT_SIZE: usize = 32;
    const LOAD: u64 = 1;
    let elf = fs::read(path).expect("the program was built");
    let number = |at: usize, size: usize| {
        let bytes = elf[at..at + size].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let (start, size) = (number(PROGRAM_HEADERS, 8), number(HEADER_SIZE, 2));
    (0..number(HEADER_COUNT, 2))
        .map(|index| usize::try_from(start + index * size).expect("a small file"))
        .filter(|header| number(*header, 4) == LOAD)
        .map(|header| number(header + SEGMENT_SIZE, 8))
        .sum()
}

/// The reference service as PID 1 of a container.
struct Container {
    service: Child,
    /// The service's log, which must stay open, because a service cannot log to a closed pipe.
    _log: BufReader<ChildStderr>,
    /// The service's PID outside the container.
    process: u32,
}

impl Container {
    fn start() -> Self {
        Self::start_under(&[])
    }

    fn start_under(wrapper: &[&str]) -> Self {
        let mut service = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c"])
            .arg("mount -t tmpfs -o mode=1777 tmpfs /dev/shm && exec \"$@\"")
            .arg("sh")
            .args(wrapper)
            .arg(program("service"))
            .env("PORT", "0")
            .env("DRAIN_SECONDS", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let children = format!("/proc/{0}/task/{0}/children", service.id());
        // The service logs this line after it has advertised its address.
        let mut log = BufReader::new(service.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("waiting for the required checks") {
            line.clear();
            let length = log.read_line(&mut line).expect("it is UTF-8");
            assert!(length > 0, "the service did not start");
        }
        let children = fs::read_to_string(children).expect("it runs");
        let container = Self {
            service,
            _log: log,
            process: children.trim().parse().expect("one child"),
        };
        let mut probe = container.enter(&[]);
        let said = probe.arg(program("service")).arg("healthcheck").output();
        let said = said.expect("nsenter starts");
        assert!(said.status.success(), "{said:?}");
        container
    }

    /// A command that runs in the container, with `PATH` as its only environment variable.
    fn enter(&self, wrapper: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.process))
            .args(["--mount", "--pid", "--"])
            .args(wrapper)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default());
        command
    }

    fn instructions(&self, name: &str, arguments: &[&str]) -> u64 {
        let output = self
            .enter(&CALLGRIND)
            .arg(program(name))
            .args(arguments)
            .output()
            .expect("valgrind starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        let count = text.split("Collected : ").nth(1);
        let count = count.and_then(|rest| rest.split_whitespace().next());
        count
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("{text}"))
    }

    fn page_faults(&self, name: &str, arguments: &[&str]) -> u64 {
        let mut child = self
            .enter(&[])
            .arg(program(name))
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("nsenter starts");
        // The figures of an ended process can be read until its parent waits for it.
        let deadline = Instant::now() + Duration::from_secs(10);
        let faults = loop {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()));
            let stat = stat.expect("it was not waited for");
            let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
            let fields: Vec<_> = fields.split(' ').collect();
            if fields[0] == "Z" {
                // The field counts the page faults of the children that nsenter has waited for.
                break fields[8].parse().expect("a number");
            }
            assert!(Instant::now() < deadline, "{name} does not end");
            thread::yield_now();
        };
        assert!(child.wait().expect("it has ended").success(), "{name}");
        faults
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

/// Returns the path of a program in `benches/variants`. The first call builds all of the programs.
fn program(name: &str) -> PathBuf {
    static RELEASE: LazyLock<PathBuf> = LazyLock::new(|| {
        let root = Path::new(lifesign_e2e::REPOSITORY);
        let target = root.join("target/benches");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--package=variants"])
            .args(["--target", TARGET])
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("RUSTFLAGS")
            .current_dir(root.join("benches"))
            .status()
            .expect("cargo starts");
        assert!(built.success());
        target.join(TARGET).join("release")
    });
    RELEASE.join(name)
}

//! `harness PROGRAMS ROUNDS`: runs every probe that is found, in turn and in another order each round, against one
//! service, and prints what each cost. Writes `probe.svg`.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [programs, rounds] = &*arguments else {
        return Err("expected a folder of programs and a number of rounds".into());
    };
    let programs = Path::new(programs);
    let service = Service::start(programs)?;
    let mut contenders = contenders(programs, &service);
    contenders.retain(|contender| {
        let found = Path::new(&contender.command[0]).exists();
        if !found {
            println!("{} is not here: {}\n", contender.name, contender.command[0]);
        }
        found
    });

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut samples: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
    let rounds: usize = rounds.parse()?;
    for round in 0..rounds + WARM_UP {
        let mut order: Vec<_> = (0..contenders.len()).collect();
        random.shuffle(&mut order);
        for i in order {
            let sample = service.measure(programs, &contenders[i])?;
            if round >= WARM_UP {
                samples.entry(i).or_default().push(sample);
            }
        }
    }

    let rows: Vec<_> = contenders
        .iter()
        .enumerate()
        .map(|(i, contender)| Row::new(contender, &samples[&i], &service))
        .collect();
    print(&rows, rounds);
    fs::write("probe.svg", plot(&rows))?;
    Ok(())
}

/// Not counted: files and branch predictors are cold.
const WARM_UP: usize = 5;

struct Contender {
    name: &'static str,
    command: Vec<String>,
}

fn contenders(programs: &Path, service: &Service) -> Vec<Contender> {
    let port = service.url.rsplit(':').next().unwrap_or_default();
    let health = format!("{}/health", service.url);
    let here = service.url.trim_start_matches("http://");
    let own = |name: &str| programs.join(name).display().to_string();
    let all: [(&str, &[&str]); 17] = [
        ("nothing: an empty Rust main, musl", &[&own("musl/empty")]),
        ("nothing: the service's binary, musl", &[&own("musl/idle")]),
        ("the floor: C, one socket, musl", &[&own("floor"), port]),
        (
            "lifesign alone, musl",
            &[&own("musl/alone"), "healthcheck", &health],
        ),
        (
            "lifesign in the service, musl, by URL",
            &[&own("musl/service"), "healthcheck", &health],
        ),
        (
            "**lifesign in the service, musl**",
            &[&own("musl/service"), "healthcheck"],
        ),
        (
            "lifesign in the service, musl, no PIE",
            &[&own("no-pie/service"), "healthcheck"],
        ),
        (
            "**lifesign in the service, glibc**",
            &[&own("glibc/service"), "healthcheck"],
        ),
        (
            "busybox wget, static",
            &["/usr/bin/busybox", "wget", "-q", "-O", "/dev/null", &health],
        ),
        ("hyper, one thread, musl", &[&own("musl/hyper"), &health]),
        (
            "reqwest without TLS, many threads, musl",
            &[&own("musl/reqwest"), &health],
        ),
        ("Go, net.Dial", &[&own("go-dial"), here]),
        ("Go, http.Get", &[&own("go-get"), &health]),
        (
            "GNU wget",
            &["/usr/bin/wget", "-q", "-O", "/dev/null", &health],
        ),
        ("curl -fsS", &["/usr/bin/curl", "-fsS", &health]),
        ("microcheck", &[&own("httpcheck"), &health]),
        (
            "grpc-health-probe",
            &[&own("grpc-health-probe"), "-addr", here],
        ),
    ];
    all.into_iter()
        .map(|(name, command)| Contender {
            name,
            command: command.iter().map(|&word| word.to_owned()).collect(),
        })
        .collect()
}

/// The reference service, as process 1 of a container of its own.
struct Service {
    child: Child,
    process: String,
    url: String,
    // Kept open, or the service could not print.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Service {
    fn start(programs: &Path) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c"])
            .arg("mount -t tmpfs -o mode=1777 tmpfs /dev/shm && exec \"$0\"")
            .arg(programs.join("musl/service"))
            .env("PORT", "0")
            .env("HOST", "127.0.0.1")
            .env("DRAIN_SECONDS", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .ok_or(line.clone())?;
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let service = Self {
            process: fs::read_to_string(children)?.trim().to_owned(),
            url: format!("http://{address}"),
            child,
            _stdout: stdout,
        };
        // It advertises a moment after it has said where it listens.
        let probe = Contender {
            name: "the first",
            command: vec![
                programs.join("musl/service").display().to_string(),
                "healthcheck".to_owned(),
            ],
        };
        for _ in 0..100 {
            if service.measure(programs, &probe).is_ok() {
                return Ok(service);
            }
        }
        Err("the service does not become healthy".into())
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.process, "--mount", "--pid", "--"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    fn measure(&self, programs: &Path, contender: &Contender) -> Result<Sample, Box<dyn Error>> {
        let output = self
            .enter()
            .arg(programs.join("measure"))
            .args(&contender.command)
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        match *numbers {
            [wall, cpu, faults, memory, 0] => Ok(Sample {
                wall,
                cpu,
                faults,
                memory,
            }),
            _ => Err(format!("{}: {text}", contender.name).into()),
        }
    }

    fn system_calls(&self, contender: &Contender) -> Option<usize> {
        let output = self
            .enter()
            .args([
                "strace",
                "-f",
                "-qq",
                "-e",
                "signal=none",
                "-o",
                "/dev/stderr",
            ])
            .args(&contender.command)
            .output()
            .ok()?;
        let calls = String::from_utf8_lossy(&output.stderr);
        let calls = calls.lines().filter(|line| !line.contains(" resumed>"));
        Some(
            calls
                .filter(|line| line.contains('('))
                .count()
                .checked_sub(1)?,
        )
    }

    fn instructions(&self, contender: &Contender) -> Option<u64> {
        let output = self
            .enter()
            .args([
                "valgrind",
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
            ])
            .args(&contender.command)
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let count = text.split("Collected : ").nth(1)?;
        count.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Sample {
    /// Nanoseconds.
    wall: u64,
    /// Microseconds.
    cpu: u64,
    faults: u64,
    /// KiB.
    memory: u64,
}

struct Row {
    name: &'static str,
    /// In microseconds: the median, and where the middle half begins and ends.
    wall: [f64; 3],
    cpu: f64,
    faults: u64,
    memory: u64,
    size: u64,
    system_calls: Option<usize>,
    instructions: Option<u64>,
}

impl Row {
    fn new(contender: &Contender, samples: &[Sample], service: &Service) -> Self {
        let quantile = |of: fn(&Sample) -> u64, part: f64| {
            let mut values: Vec<_> = samples.iter().map(of).collect();
            values.sort_unstable();
            values[((values.len() - 1) as f64 * part) as usize]
        };
        let cpu: u64 = samples.iter().map(|sample| sample.cpu).sum();
        Self {
            name: contender.name,
            wall: [0.5, 0.25, 0.75].map(|part| quantile(|s| s.wall, part) as f64 / 1000.0),
            cpu: cpu as f64 / samples.len() as f64,
            faults: quantile(|s| s.faults, 0.5),
            memory: quantile(|s| s.memory, 0.5),
            size: fs::metadata(&contender.command[0]).map_or(0, |about| about.len() / 1000),
            system_calls: service.system_calls(contender),
            instructions: service.instructions(contender),
        }
    }
}

fn print(rows: &[Row], rounds: usize) {
    let median = |word: &str| {
        let row = rows.iter().find(|row| row.name.contains(word));
        row.map(|row| row.wall[0])
    };
    let anchors = ["the floor", "busybox", "http.Get", "curl"];
    println!("Medians of {rounds} runs each, in turn; CPU is the mean.\n");
    println!(
        "| probe | wall, µs (middle half) | × floor | × busybox | × Go http.Get | × curl | CPU, µs | instructions \
         | system calls | page faults | peak KiB | size, KB |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for row in rows {
        let [wall, low, high] = row.wall;
        let mut line = format!("| {} | {wall:.0} ({low:.0}–{high:.0}) |", row.name);
        for anchor in anchors {
            let ratio = median(anchor).map(|anchor| format!("{:.2}", wall / anchor));
            let _ = write!(line, " {} |", ratio.unwrap_or_default());
        }
        let told = |number: Option<u64>| number.map_or("?".to_owned(), |n| n.to_string());
        println!(
            "{line} {:.0} | {} | {} | {} | {} | {} |",
            row.cpu,
            told(row.instructions),
            told(row.system_calls.map(|n| n as u64)),
            row.faults,
            row.memory,
            row.size
        );
    }
}

/// Bars on a logarithmic scale, since the slowest takes twenty times the time of the fastest.
fn plot(rows: &[Row]) -> String {
    const LEFT: f64 = 310.0;
    const WIDTH: f64 = 480.0;
    let least = 100.0_f64;
    let most = rows.iter().map(|row| row.wall[2]).fold(1000.0, f64::max) * 1.1;
    let x = |wall: f64| LEFT + (wall / least).ln() / (most / least).ln() * WIDTH;
    let height = rows.len() * 22 + 40;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for mark in [
        100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0,
    ] {
        if mark < most {
            let at = x(mark);
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.0} 5V{}\" stroke=\"#ddd\"/><text x=\"{at:.0}\" y=\"{}\" \
                 text-anchor=\"middle\">{mark} µs</text>",
                height - 30,
                height - 12
            );
        }
    }
    for (i, row) in rows.iter().enumerate() {
        let y = i * 22 + 10;
        let [wall, low, high] = row.wall.map(x);
        let ours = row.name.contains("lifesign");
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.0}\" \
             height=\"16\" fill=\"{}\"/><path d=\"M{low:.0} {mid}H{high:.0}\" stroke=\"black\"/>",
            LEFT - 8.0,
            y + 12,
            row.name.trim_matches('*'),
            wall - LEFT,
            if ours { "#2a7f62" } else { "#b8c4cc" },
            mid = y + 8,
        );
    }
    svg + "</svg>\n"
}

/// xorshift: the order need not be secret, only different.
struct Random(u64);

impl Random {
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            items.swap(i, (self.0 % (i as u64 + 1)) as usize);
        }
    }
}

//! `harness PROGRAMS ROUNDS`: runs all available probes against one service, in a new random order
//! in each round. Prints the costs of each probe, and writes `probe.svg`.

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
        return Err("expected a directory of programs and a number of rounds".into());
    };
    let programs = Path::new(programs);
    let service = Service::start(programs)?;
    let mut contenders = contenders(programs, &service);
    contenders.retain(|contender| {
        let found = Path::new(&contender.command[0]).exists();
        if !found {
            println!("{} skipped: no {}\n", contender.name, contender.command[0]);
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
    fs::write("probe.svg", plot(&rows, rounds))?;
    Ok(())
}

/// Number of rounds at the start whose measurements are dropped, because caches are cold.
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

/// The reference service as PID 1, with its own mount and PID namespaces.
struct Service {
    child: Child,
    process: String,
    url: String,
    // This pipe must stay open, because the service cannot print to a closed pipe.
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
        // A probe fails until the service is healthy, so the probe is repeated until it succeeds.
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
        Err("the service did not become healthy".into())
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
    /// Wall time in nanoseconds.
    wall: u64,
    /// CPU time in microseconds.
    cpu: u64,
    faults: u64,
    /// Peak memory in KiB.
    memory: u64,
}

struct Row {
    name: &'static str,
    /// Wall time in microseconds: the median, and the bounds of the middle half.
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

/// Bars of the chart: for each, a part of the row's name in the table, and the label in the chart.
const BARS: [(&str, &str); 9] = [
    ("the floor", "C program that only sends a request"),
    ("**lifesign in the service, musl", "app healthcheck, static"),
    ("hyper", "hyper client, static"),
    ("busybox", "busybox wget"),
    (
        "**lifesign in the service, glibc",
        "app healthcheck, dynamic",
    ),
    ("reqwest", "reqwest client, static"),
    ("http.Get", "Go http.Get"),
    ("GNU wget", "GNU wget"),
    ("curl", "curl"),
];

const STYLE: &str = "<style>text{font:15px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1f2328}\
    .title{font-size:17px;font-weight:600}.note{font-size:13px;fill:#59636e}.page{fill:#fff}.bar{fill:#afb8c1}\
    .ours{fill:#2a7f62}.bold{font-weight:600}@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.note{fill:#9198a1}\
    .page{fill:#0d1117}.bar{fill:#656c76}.ours{fill:#3fb68b}}</style>";

/// Draws a bar for each probe. The label is above the bar, so that the chart is narrow enough for a
/// phone.
fn plot(rows: &[Row], rounds: usize) -> String {
    const LEFT: f64 = 16.0;
    const WIDTH: f64 = 350.0;
    const TOP: usize = 68;
    const STEP: usize = 42;
    let bars: Vec<_> = BARS
        .iter()
        .filter_map(|(part, label)| {
            let row = rows.iter().find(|row| row.name.contains(part))?;
            Some((label, row))
        })
        .collect();
    let longest = bars.iter().map(|(_, row)| row.wall[0]).fold(1.0, f64::max);
    let height = TOP + bars.len() * STEP + 8;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 440 {height}\" width=\"440\" height=\"{height}\" \
         role=\"img\">\n<title>Wall time of one health probe</title>\n{STYLE}\n\
         <rect class=\"page\" width=\"440\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"28\">Wall time of one health probe</text>\n\
         <text class=\"note\" x=\"{LEFT}\" y=\"48\">From fork to exit, median of {rounds} runs. Shorter is better.</text>\n"
    );
    for (i, (label, row)) in bars.iter().enumerate() {
        let y = TOP + i * STEP;
        let wall = row.wall[0];
        let ours = row.name.contains("lifesign");
        let width = wall / longest * WIDTH;
        let [weight, color] = if ours {
            [" class=\"bold\"", "ours"]
        } else {
            ["", "bar"]
        };
        let _ = writeln!(
            svg,
            "<text{weight} x=\"{LEFT}\" y=\"{}\">{label}</text>\
             <rect class=\"{color}\" x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"14\" rx=\"2\"/>\
             <text{weight} x=\"{:.1}\" y=\"{}\">{:.2} ms</text>",
            y + 14,
            y + 20,
            LEFT + width + 6.0,
            y + 32,
            wall / 1000.0,
        );
    }
    svg + "</svg>\n"
}

/// A xorshift generator, which is random enough: the order only has to differ between rounds.
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

//! What a service needs at run time beside its binary, read-only and as 65532: files, a configuration,
//! a volume, CA certificates and time zones.

use lifesign_e2e::{docker, remove, unique};

use crate::engine::{Image, Project};

/// Reads what the arguments name, and then writes to the files that the arguments name after `--`.
const MAIN: &str = r#"
fn main() {
    let mut words = std::env::args().skip(1);
    for path in words.by_ref().take_while(|word| word != "--") {
        match std::fs::read(&path) {
            Ok(bytes) if bytes.len() < 100 => print!("{}", String::from_utf8_lossy(&bytes)),
            Ok(_) => println!("{path} is long"),
            Err(error) => println!("{path}: {error}"),
        }
    }
    for path in words {
        match std::fs::write(&path, "") {
            Ok(()) => println!("{path} is written"),
            Err(error) => println!("{path}: {error}"),
        }
    }
}
"#;

#[test]
fn files_and_directories_come_by_arguments() {
    let project = Project::new("files", "1.0.0");
    project.write("src/main.rs", MAIN);
    project.write("static/css/style.css", "style\n");
    project.write("templates/page.html", "page\n");
    project.write("config.toml", "default\n");
    project.write("static/server.key", "secret\n");
    let failed = Image::build(&project.directory, &["--build-arg=FILES=config.toml"]).unwrap_err();
    project.ignore("!config.toml");

    let image = Image::build(
        &project.directory,
        &[
            "--build-arg=FILES=static templates config.toml",
            "--build-arg=WRITABLE=/data /var/lib/files",
        ],
    )
    .unwrap();

    assert!(failed.contains("cp: cannot stat 'config.toml'"), "{failed}");
    let read = run(
        &image,
        &[],
        &[
            "static/css/style.css",
            "/templates/page.html",
            "config.toml",
            "static/server.key",
            "/etc/ssl/certs/ca-certificates.crt",
            "/usr/share/zoneinfo/Europe/Berlin",
            "--",
            "static/css/style.css",
        ],
    );
    assert_eq!(
        read,
        "style\npage\ndefault\nstatic/server.key: No such file or directory (os error 2)\n\
         /etc/ssl/certs/ca-certificates.crt is long\n/usr/share/zoneinfo/Europe/Berlin is long\n\
         static/css/style.css: Read-only file system (os error 30)"
    );
    let volume = Volume(format!("lifesign-test-{}", unique()));
    let mounts = ["/data", "/var/lib/files"].map(|path| format!("--volume={}:{path}", volume.0));
    for mount in &mounts {
        let path = format!("{}/file", mount.rsplit(':').next().unwrap());
        let written = run(&image, &[mount], &["--", &path, "/elsewhere"]);
        assert_eq!(
            written,
            format!("{path} is written\n/elsewhere: Read-only file system (os error 30)")
        );
    }
    let unprepared = format!("--volume={}-other:/other", volume.0);
    let denied = run(&image, &[&unprepared], &["--", "/other/file"]);
    // What Kubernetes does to a volume for `fsGroup: 65532`.
    let prepare = "chgrp 65532 /other && chmod 2770 /other";
    docker([
        "run",
        "--rm",
        &unprepared,
        "alpine:3.23",
        "sh",
        "-c",
        prepare,
    ]);
    let granted = run(&image, &[&unprepared], &["--", "/other/file"]);
    remove(["volume", "rm", "--force", &format!("{}-other", volume.0)]);
    assert_eq!(denied, "/other/file: Permission denied (os error 13)");
    assert_eq!(granted, "/other/file is written");
    let tmpfs = "--tmpfs=/other:uid=65532,gid=65532,mode=0700";
    let written = run(&image, &[tmpfs], &["--", "/other/file"]);
    assert_eq!(written, "/other/file is written");
}

struct Volume(String);

impl Drop for Volume {
    fn drop(&mut self) {
        remove(["volume", "rm", "--force", &self.0]);
    }
}

/// Runs the image read-only and without capabilities, and returns what it prints.
fn run(image: &Image, options: &[&str], arguments: &[&str]) -> String {
    let locked_down = [
        "run",
        "--rm",
        "--read-only",
        "--cap-drop=ALL",
        "--network=none",
    ];
    let words = locked_down.iter().chain(options).copied();
    docker(words.chain([&*image.tag]).chain(arguments.iter().copied()))
}

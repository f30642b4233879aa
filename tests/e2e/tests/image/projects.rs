//! Images of other projects: workspaces, dependencies with C code, build scripts, and projects that
//! the build refuses.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use lifesign_e2e::{docker, remove, unique};

use crate::{
    builds::tools,
    engine::{Container, Image, Project, bases},
};

#[test]
fn labels_are_unknown_without_arguments() {
    let project = Project::new("anonymous", "1.2.3");
    project.write("src/main.rs", "fn main() { println!(\"1.2.3\") }");

    let image = Image::build(&project.directory, &[]).unwrap();

    for label in [
        "title",
        "description",
        "source",
        "licenses",
        "version",
        "revision",
        "created",
    ] {
        assert_eq!(image.label(label), "unknown", "{label}");
    }
}

#[test]
fn a_change_in_a_workspace_compiles_only_its_own_crates() {
    let project = Project::workspace("workspace");
    let member = "--build-arg=PACKAGE=api";
    let first = Image::build(&project.directory, &[member]).unwrap();
    let container = Container::run(&Arc::new(first), &[]);
    container.turns("healthy");

    // The current time makes the source unique. Otherwise the engine could take the build from its
    // cache.
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    project.write(
        "crates/store/src/lib.rs",
        &format!("pub fn greeting() -> &'static str {{ \"{now}\" }}"),
    );
    let changed = Image::build(&project.directory, &[member]).unwrap();

    assert_eq!(changed.compiled(), ["api", "lifesign", "store"]);
    let printed = docker(["run", "--rm", &changed.tag, "greeting"]);
    assert_eq!(printed, now.to_string());
}

#[test]
fn a_readme_that_is_compiled_in_is_a_source() {
    let project = Project::new("documented", "1.0.0");
    project.write(
        "src/main.rs",
        "fn main() { println!(\"{}{}\", include_str!(\"../README.md\"), env!(\"TOLD\")) }",
    );
    project.write(
        "build.rs",
        "fn main() { println!(\"cargo:rustc-env=TOLD=by its script\") }",
    );

    for page in ["first, ", "second, "] {
        project.write("README.md", page);
        let image = Image::build(&project.directory, &[]).unwrap();

        assert_eq!(
            docker(["run", "--rm", &image.tag]),
            format!("{page}by its script")
        );
    }
}

/// SQLite calls functions for large files. glibc's headers rename them, for example to `open64`,
/// and musl lacks the new names.
#[test]
fn a_dependency_in_c_is_linked_on_either_libc() {
    let project = Project::new("database", "1.0.0");
    project.write(
        "src/main.rs",
        "fn main() {
             let version = unsafe { std::ffi::CStr::from_ptr(libsqlite3_sys::sqlite3_libversion()) };
             println!(\"SQLite {}\", version.to_str().unwrap());
         }",
    );
    project.depend("libsqlite3-sys = { version = \"0.38\", features = [\"bundled\"] }");

    for base in ["--build-arg=BASE=scratch", "--build-arg=BASE=distroless-cc"] {
        let image = Image::build(&project.directory, &[base]).unwrap();

        let printed = docker(["run", "--rm", &image.tag]);
        assert!(printed.starts_with("SQLite 3."), "{printed}");
    }
    let arm64 = ["--build-arg=BASE=scratch", "--platform=linux/arm64"];
    Image::build(&project.directory, &arm64).unwrap();
}

#[test]
fn a_build_script_gets_the_packages_that_it_needs() {
    let project = Project::new("packaged", "1.0.0");
    project.write(
        "src/main.rs",
        "fn main() { println!(\"{}\", env!(\"BC\")) }",
    );
    project.write(
        "build.rs",
        "fn main() {
             let bc = std::process::Command::new(\"bc\").arg(\"--version\").output();
             let version = String::from_utf8(bc.expect(\"bc is installed\").stdout).unwrap();
             println!(\"cargo:rustc-env=BC={}\", version.lines().next().unwrap());
         }",
    );

    let image = Image::build(&project.directory, &["--build-arg=BUILD_PACKAGES=bc"]).unwrap();

    let printed = docker(["run", "--rm", &image.tag]);
    assert!(printed.starts_with("bc "), "{printed}");
}

/// The file is beside the crate, and the crate has a symbolic link to it.
#[test]
fn a_file_outside_the_build_context_is_named() {
    let project = Project::new("described", "1.0.0");
    project.write(
        "src/main.rs",
        "fn main() { println!(include_str!(\"notes.txt\")) }",
    );
    project.write("notes.txt", "");
    symlink("../notes.txt", project.directory.join("src/notes.txt")).unwrap();

    let log = Image::build(&project.directory, &[]).unwrap_err();

    assert!(log.contains("couldn't read `src/notes.txt`"), "{log}");
    let cure =
        " error: a file is not in the build context: append it to .dockerignore, after a `!`";
    assert!(log.contains(cure), "{log}");
}

#[test]
fn the_build_fails_if_the_base_cannot_run_the_binary() {
    let project = Project::new("linked", "1.0.0");
    project.write("src/main.rs", "fn main() { println!(\"started\") }");
    let bases = bases();
    let static_base = &bases
        .iter()
        .find(|(name, _)| name == "DISTROLESS_STATIC_IMAGE")
        .unwrap()
        .1;
    let mistaken = format!("--build-arg=DISTROLESS_CC_IMAGE={static_base}");

    let on = |base: &str, options: &[&str]| {
        let base = format!("--build-arg=BASE={base}");
        Image::build(&project.directory, &[&[&*base], options].concat())
    };
    let refused =
        "error: in the base distroless-cc, `/app healthcheck --help` did not print its help";

    // The binary is linked with glibc, which the static base lacks.
    let log = on("distroless-cc", &[&mistaken]).unwrap_err();
    assert!(
        log.contains("failed to run command '/app': No such file or directory"),
        "{log}"
    );
    assert!(log.contains(refused), "{log}");

    // Of the two bases, only distroless-cc contains this library.
    project.write(
        "build.rs",
        "fn main() { println!(\"cargo:rustc-link-arg=-Wl,--no-as-needed,-lgomp\") }",
    );
    let image = on("distroless-cc", &[]).unwrap();
    assert_eq!(docker(["run", "--rm", &image.tag]), "started");
    let log = on("debian-slim", &[]).unwrap_err();
    assert!(
        log.contains("error while loading shared libraries: libgomp.so.1: cannot open"),
        "{log}"
    );
}

#[test]
fn bases_with_one_libc_share_the_build() {
    let project = Project::new("shared", "1.0.0");
    // The current time makes the source unique. Otherwise the engine could have built it before.
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    project.write(
        "src/main.rs",
        &format!("fn main() {{ println!(\"{now}\") }}"),
    );

    for (base, compiled) in [("scratch", true), ("alpine", false)] {
        let base = format!("--build-arg=BASE={base}");
        let image = Image::build(&project.directory, &[&base]).unwrap();

        assert_eq!(!image.compiled().is_empty(), compiled, "{}", image.log);
        assert_eq!(docker(["run", "--rm", &image.tag]), now.to_string());
    }
}

#[test]
fn a_source_older_than_its_stub_is_compiled() {
    let project = Project::new("old", "1.0.0");

    for code in ["first", "second"] {
        let main = project.write(
            "src/main.rs",
            &format!("fn main() {{ println!({code:?}) }}"),
        );
        let main = File::options().write(true).open(main).unwrap();
        main.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let image = Image::build(&project.directory, &["--build-arg=BIN=old"]).unwrap();

        assert_eq!(docker(["run", "--rm", &image.tag]), code);
        let title = &image.config()["Labels"]["org.opencontainers.image.title"];
        assert_eq!(title, "old");
    }
}

/// The builder's `cargo` is a script that downloads the pinned toolchain like rustup's proxy, unless
/// it is installed.
#[test]
fn a_pinned_toolchain_is_downloaded_once() {
    let project = Project::new("pinned", "1.0.0");
    let now = UNIX_EPOCH.elapsed().unwrap().as_nanos();
    project.write("rust-toolchain.toml", "[toolchain]\nchannel = \"1.94.0\"\n");
    project.write(
        "builder",
        &format!(
            "FROM {}\n\
             COPY --chmod=0755 <<'EOF' /usr/local/bin/rustup\n\
             #!/bin/sh\n\
             # {now}: the engine has no layer of this builder in its cache.\n\
             echo \"info: downloading $(sed -n 's/^channel = //p' rust-toolchain.toml)\" >&2\n\
             touch /usr/local/rustup/pinned\n\
             EOF\n\
             RUN cargo=/usr/local/cargo/bin/cargo; \\\n\
             ln -s \"$(readlink -f $cargo)\" /usr/local/bin/real-cargo && rm $cargo\n\
             COPY --chmod=0755 <<'EOF' /usr/local/cargo/bin/cargo\n\
             #!/bin/sh\n\
             [ -e /usr/local/rustup/pinned ] || rustup\n\
             exec real-cargo \"$@\"\n\
             EOF\n",
            tools()
        ),
    );
    let builder = Builder(format!("lifesign-test-builder:{}", unique()));
    let directory = project.directory.to_str().unwrap();
    let file = format!("{directory}/builder");
    docker([
        "build", "--quiet", "--file", &file, "--tag", &builder.0, directory,
    ]);
    let rust_image = format!("--build-arg=RUST_IMAGE={}", builder.0);

    let logs = ["first", "second"].map(|code| {
        project.write(
            "src/main.rs",
            &format!("fn main() {{ println!({code:?}) }}"),
        );
        let image = Image::build(&project.directory, &[&rust_image]).unwrap();
        assert_eq!(docker(["run", "--rm", &image.tag]), code);
        image.log.clone()
    });

    let downloads = logs.map(|log| log.matches("info: downloading \"1.94.0\"").count());
    assert_eq!(downloads, [1, 0]);
}

/// The tag of a builder's image, which is removed when this is dropped.
struct Builder(String);

impl Drop for Builder {
    fn drop(&mut self) {
        remove(["image", "rm", "--force", &self.0]);
    }
}

#[test]
fn a_project_without_a_lockfile_is_refused() {
    let project = Project::new("unlocked", "1.0.0");
    project.write("src/main.rs", "fn main() {}");
    fs::remove_file(project.directory.join("Cargo.lock")).unwrap();

    let log = Image::build(&project.directory, &[]).unwrap_err();

    assert!(log.contains(" error: no Cargo.lock: commit it, "), "{log}");
}

#[test]
fn an_ambiguous_build_lists_the_choices() {
    let project = Project::new("choice", "1.0.0");
    let refusal = |options: &[&str]| Image::build(&project.directory, options).unwrap_err();

    project.write("src/lib.rs", "");
    let none = refusal(&[]);
    project.write("src/bin/one.rs", "fn main() {}");
    project.write("src/bin/two.rs", "fn main() {}");
    let two = refusal(&[]);
    let both = refusal(&["--build-arg=BIN=one", "--build-arg=EXAMPLE=three"]);

    for (log, found) in [(none, "none"), (two, "one two"), (both, "one three")] {
        let error = " error: pass --build-arg BIN=…, PACKAGE=… or EXAMPLE=… to choose one binary";
        assert!(log.contains(&format!("{error}; found: {found}\n")), "{log}");
    }
}

#[test]
fn a_binary_without_healthcheck_fails_the_build() {
    let project = Project::new("silent", "1.0.0");

    for main in ["fn main() {}", "fn main() { loop { std::thread::park() } }"] {
        project.write("src/main.rs", main);
        let log = Image::build(&project.directory, &[]).unwrap_err();

        assert!(
            log.contains("main() does not begin with Cli::run()"),
            "{log}"
        );
    }
}

#[test]
fn the_builder_gets_sources_and_no_secrets() {
    let sources = [
        ".cargo/config.toml",
        ".sqlx/query-1.json",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "README.md",
        "assets/logo.svg",
        "benches/speed.rs",
        "build.rs",
        "crates/store/migrations/1.sql",
        "crates/store/page.html",
        "examples/tls/Cargo.toml",
        "examples/tls/src/main.rs",
        "locales/de.json",
        "migrations/1.sql",
        "openapi.json",
        "proto/service.proto",
        "public/index.html",
        "rust-toolchain.toml",
        "server/main.rs",
        "services/api/Cargo.toml",
        "services/api/README.md",
        "services/api/build.rs",
        "services/api/src/main.rs",
        "src/main.rs",
        "src/target/mod.rs",
        "static/style.css",
        "templates/page.html",
        "tests/api.rs",
        "vendor/ring/.cargo-checksum.json",
        "vendor/ring/tests/server.pem",
    ];
    let others = [
        ".cargo/credentials.toml",
        ".env",
        ".git/config",
        "compose.yaml",
        "crates/store/.env.local",
        "crates/store/.git",
        "crates/store/credentials.json",
        "crates/store/id_ed25519",
        "examples/tls/server.key",
        "examples/tls/target/debug/tls",
        "node_modules/left-pad/src/index.js",
        "notes.txt",
        "src/server.pem",
        "static/.env",
        "target/package/service-1.0.0/src/main.rs",
        "target/release/service",
        "tests/client.p12",
    ];
    let project = Project::new("context", "1.0.0");
    for file in sources.iter().chain(&others) {
        project.write(file, "");
    }
    project.write("Dockerfile", "FROM scratch\nCOPY . /\n");

    let sent = project.directory.with_extension("sent");
    let directories = [&sent, &project.directory].map(|directory| directory.to_str().unwrap());
    docker(
        ["build", "--quiet", "--output"]
            .into_iter()
            .chain(directories),
    );

    assert_eq!(files(&sent), sources);
    fs::remove_dir_all(sent).unwrap();
}

/// Returns the paths of all files in a directory, relative to the directory.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let path = path.strip_prefix(directory).unwrap();
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

//! A build that fails ends with a line that names the cure.
//!
//! Most failures are reproduced in one container of the builder, because a build of an image takes
//! seconds for each.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use lifesign_e2e::{REPOSITORY, remove};

use crate::engine::{Image, Project};

/// A package that fails to build: its name, its build dependency, the body of its build script or
/// its `src/main.rs`, and the words with which the cure begins.
struct Failure {
    name: &'static str,
    dependency: &'static str,
    code: Code,
    cure: &'static str,
}

enum Code {
    /// The body of the build script.
    Script(&'static str),
    Main(&'static str),
    /// A program that the builder lacks, and the recorded output of the crate that needs it. The
    /// build script prints the output, because compiling the crate takes a minute.
    Program(&'static str, &'static str),
}

use Code::{Main, Program, Script};

// The versions are pinned, because a later one may word its failure differently.
const FAILURES: [Failure; 16] = [
    Failure {
        name: "openssl",
        dependency: "openssl-sys = \"=0.9.118\"",
        code: Script(""),
        cure: "OpenSSL is missing: pass BASE=distroless-cc and BUILD_PACKAGES=\"libssl-dev pkg-config\"",
    },
    // prost-build 0.14.
    Failure {
        name: "protoc",
        dependency: "",
        code: Program(
            "protoc",
            "Custom { kind: NotFound, error: \"Could not find `protoc`. If `protoc` is installed, \
             try setting the `PROTOC` environment variable to the path of the `protoc` binary.",
        ),
        cure: "protoc is missing: pass BUILD_PACKAGES=protobuf-compiler",
    },
    Failure {
        name: "with-cmake",
        dependency: "cmake = \"=0.1.58\"",
        code: Script("cmake::build(\"c\");"),
        cure: "CMake is missing: pass BUILD_PACKAGES=\"cmake make\"",
    },
    // bindgen 0.72.
    Failure {
        name: "libclang",
        dependency: "",
        code: Program(
            "clang",
            "Unable to find libclang: \"couldn't find any valid shared libraries matching: \
             ['libclang.so', 'libclang-*.so', 'libclang.so.*', 'libclang-*.so.*'], set the \
             `LIBCLANG_PATH` environment variable\"",
        ),
        cure: "libclang or its headers are missing: pass BUILD_PACKAGES=clang",
    },
    // bindgen 0.72 with Debian's libclang1, but without clang.
    Failure {
        name: "headers",
        dependency: "",
        code: Program(
            "clang",
            "ClangDiagnostic(\"src/a.h:1:10: fatal error: 'stdbool.h' file not found\\n\")",
        ),
        cure: "libclang or its headers are missing: pass BUILD_PACKAGES=clang",
    },
    // The first line of OpenSSL's `Configure`, which openssl-src executes.
    Failure {
        name: "perl",
        dependency: "",
        code: Script(
            "assert!(std::process::Command::new(\"perl\").args([\"-e\", \"use FindBin;\"]).status().unwrap().success())",
        ),
        cure: "a module of Perl is missing: pass BUILD_PACKAGES=\"perl make\"",
    },
    // openssl-src 300.
    Failure {
        name: "make",
        dependency: "",
        code: Program("make", "Command 'make' not found. Is make installed?"),
        cure: "make is missing: pass BUILD_PACKAGES=make",
    },
    // tikv-jemalloc-sys 0.6.
    Failure {
        name: "jemalloc",
        dependency: "",
        code: Program(
            "make",
            "running: cd \"/target/build\" && MAKEFLAGS=\"-j\" \"make\"\n--- stderr\n\
             configure: WARNING: using cross tools not prefixed with host triplet\n\
             failed to execute command: No such file or directory (os error 2)",
        ),
        cure: "make is missing: pass BUILD_PACKAGES=make",
    },
    Failure {
        name: "cxx",
        dependency: "cc = \"=1.11.3\"",
        code: Script("cc::Build::new().cpp(true).file(\"a.cc\").compile(\"a\");"),
        cure: "C++ is missing: pass BASE=distroless-cc and BUILD_PACKAGES=g++",
    },
    // pkg-config 0.3.
    Failure {
        name: "pkg-config",
        dependency: "",
        code: Program(
            "pkgconf-is-absent",
            "The pkg-config command could not be found.",
        ),
        cure: "a library is missing: pass BASE=debian-slim and BUILD_PACKAGES=\"pkg-config …\"",
    },
    Failure {
        name: "library",
        dependency: "libdbus-sys = \"=0.2.7\"",
        code: Script(""),
        cure: "a library is missing: pass BASE=debian-slim and BUILD_PACKAGES=\"pkg-config …\"",
    },
    Failure {
        name: "include",
        dependency: "",
        code: Main("const _: &str = include_str!(\"../openapi.json\"); fn main() {}"),
        cure: "a file is not in the build context: append it to .dockerignore",
    },
    // rust-embed 8.
    Failure {
        name: "embed",
        dependency: "",
        code: Main(
            "compile_error!(\"#[derive(RustEmbed)] folder '/src/static' does not exist. cwd: '/src'\"); fn main() {}",
        ),
        cure: "a file is not in the build context: append it to .dockerignore",
    },
    // sqlx 0.9.
    Failure {
        name: "migrate",
        dependency: "",
        code: Main(
            "compile_error!(\"error canonicalizing migration directory /src/sql: No such file or directory (os error 2)\"); fn main() {}",
        ),
        cure: "a file is not in the build context: append it to .dockerignore",
    },
    Failure {
        name: "read",
        dependency: "",
        code: Script("std::fs::read(\"config.default.toml\").unwrap();"),
        cure: "a program or file is missing: pass BUILD_PACKAGES, or append the file to .dockerignore",
    },
    // A mistake in the code has no cure, whatever its text says.
    Failure {
        name: "mistake",
        dependency: "",
        code: Main(
            "compile_error!(\"No such file, folder 'std and file.h' does not exist, couldn't read \
             the system library, canonicalizing, -DCMAKE_CXX_COMPILER=c++\"); fn main() {}",
        ),
        cure: "could not compile `mistake`",
    },
];

#[test]
fn a_failed_compilation_ends_with_the_cure() {
    let project = Project::without_package("cures");
    // The stage that compiles, up to the first file of the service.
    let dockerfile = fs::read_to_string(format!("{REPOSITORY}/Dockerfile")).unwrap();
    let (builder, _) = dockerfile
        .split_once("\nCOPY vendo[r]")
        .expect("the builder");
    let builder = project.write("builder", &format!("{builder}\nCOPY crates /src\n"));
    thread::scope(|scope| {
        for failure in &FAILURES {
            let project = &project;
            scope.spawn(move || failure.write(project));
        }
    });
    let file = format!("--file={}", builder.display());
    let image = Image::build(&project.directory, &[&file]).unwrap();

    for failure in &FAILURES {
        let log = failure.compile(&image);
        let last = log.lines().last().unwrap_or_default();

        let cure = format!("error: {}", failure.cure);
        assert!(last.starts_with(&cure), "{}: {log}", failure.name);
    }
}

impl Failure {
    fn write(&self, project: &Project) {
        let directory = Path::new("crates").join(self.name);
        let write = |file: &str, text: &str| {
            let path = directory.join(file);
            project.write(path.to_str().expect("UTF-8"), text)
        };
        let manifest = write(
            "Cargo.toml",
            &format!(
                "[package]\nname = {:?}\nversion = \"1.0.0\"\nedition = \"2024\"\n\n\
                 [build-dependencies]\n{}\n",
                self.name, self.dependency
            ),
        );
        let (main, script) = match self.code {
            Main(main) => (main, String::new()),
            Script(body) => ("fn main() {}", body.to_owned()),
            Program(program, output) => (
                "fn main() {}",
                format!(
                    "let found = std::process::Command::new({program:?}).output();\n\
                     if found.is_err() {{ eprintln!(\"{{}}\", {output:?}); std::process::exit(1) }}"
                ),
            ),
        };
        write("src/main.rs", main);
        write("build.rs", &format!("fn main() {{ {script} }}"));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["generate-lockfile", "--quiet", "--manifest-path"]);
        assert!(cargo.arg(manifest).status().unwrap().success());
    }

    fn compile(&self, image: &Image) -> String {
        let name = format!("{}-{}", image.tag.replace(':', "-"), self.name);
        let script = "cd $0 && mkdir /plan && echo --bin=$0 >/plan/arguments && compile build 2>&1";
        let run = Command::new("docker")
            .args(["run", "--rm", "--network=host", "--name", &name, &image.tag])
            .args(["sh", "-c", script, self.name])
            .stdin(Stdio::null())
            .output()
            .expect("docker");
        remove(["rm", "--force", &name]);
        assert_eq!(run.status.code(), Some(1), "{run:?}");
        String::from_utf8(run.stdout).unwrap()
    }
}

//! Two builds of one commit give identical images, byte for byte.

use std::{fs, path::Path, process::Command};

use lifesign_e2e::{REPOSITORY, docker, output, remove, unique};

use crate::builds::{Image, Machine, Project, build_options, text};

/// Build arguments whose values come from the commit.
const METADATA: [&str; 4] = [
    "--build-arg=VERSION=1.2.3",
    "--build-arg=GIT_COMMIT=6b1f0a53c8de947210fe3a85d4c6b79e02f18d3a",
    "--build-arg=BUILD_DATE=2026-11-23T18:31:00Z",
    "--build-arg=SOURCE_DATE_EPOCH=1795458660",
];

#[test]
fn a_commit_is_one_image() {
    let fixture = fixture();
    for (source, binary) in [
        (fixture.directory.as_path(), "BIN=service"),
        (Path::new(REPOSITORY), "EXAMPLE=service"),
    ] {
        let binary = format!("--build-arg={binary}");
        let images = checkouts(source).map(|project| {
            let options = [&METADATA[..], &["--no-cache", &binary]].concat();
            Image::build(&project, &options).unwrap_or_else(|log| panic!("{log}"))
        });

        let [one, two] = images.each_ref().map(executable);
        assert!(
            one == two,
            "executables of {} and {} bytes",
            one.len(),
            two.len()
        );
        let [one, two] = images.each_ref().map(inspect);
        assert_eq!(one, two);
    }
}

#[test]
fn a_commit_is_exported_with_one_digest() {
    let fixture = fixture();
    let engine = Machine::engine();

    let digests = checkouts(&fixture.directory).map(|project| {
        let directory = format!("/{}", unique());
        engine.put(project.path(), &directory);
        let build = engine
            .command()
            .args(["docker", "build", "--no-cache", "--build-arg=BASE=scratch"])
            .args(build_options())
            .args(METADATA)
            .args([
                // The provenance contains the time of the export.
                "--provenance=false",
                "--output=type=oci,dest=/image,tar=false,rewrite-timestamp=true",
                &directory,
            ])
            .output()
            .expect("docker");
        assert!(build.status.success(), "{}", text(&build.stderr));
        let index = output(engine.command().args(["cat", "/image/index.json"]));
        let (_, digest) = index.split_once("\"digest\":\"").expect("a digest");
        digest.split('"').next().map(str::to_owned)
    });

    assert_eq!(digests[0], digests[1]);
}

/// A project that contains everything that can put a directory or a time into an executable: the
/// output of a build script, panic locations, macros, and generics that two crates share.
fn fixture() -> Project {
    let project = Project::new();
    let package = |name: &str| {
        format!("[package]\nname = {name:?}\nversion = \"1.0.0\"\nedition = \"2024\"\n\n")
    };
    project.write(
        "Cargo.toml",
        &format!(
            "{}[dependencies]\npart = {{ path = \"crates/part\" }}\n\n[workspace]\n",
            package("service")
        ),
    );
    project.write(
        "Cargo.lock",
        "version = 4\n\n[[package]]\nname = \"part\"\nversion = \"1.0.0\"\n\n\
         [[package]]\nname = \"service\"\nversion = \"1.0.0\"\ndependencies = [\"part\"]\n",
    );
    project.write(
        "src/main.rs",
        "fn main() {\n    let words = std::env::args().map(|word| (word, file!())).collect();\n    \
         println!(\"{} {:?}\", env!(\"CARGO_MANIFEST_DIR\"), part::longest(&words));\n}\n",
    );
    project.write("crates/part/Cargo.toml", &package("part"));
    project.write(
        "crates/part/build.rs",
        "fn main() {\n    let directory = std::env::var(\"OUT_DIR\").expect(\"cargo sets it\");\n    \
         let code = format!(\"pub const FOLDER: &str = {directory:?};\");\n    \
         std::fs::write(format!(\"{directory}/directory.rs\"), code).expect(\"it can be written\");\n}\n",
    );
    project.write(
        "crates/part/src/lib.rs",
        "include!(concat!(env!(\"OUT_DIR\"), \"/directory.rs\"));\n\n\
         pub fn longest(words: &std::collections::HashMap<String, &str>) -> (String, &'static str) {\n    \
         let word = words.keys().max_by_key(|word| word.len()).expect(\"a word\");\n    \
         (word.clone(), FOLDER)\n}\n",
    );
    let git = |words: &[&str]| {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@git.invalid"];
        output(
            Command::new("git")
                .current_dir(&project.directory)
                .args(identity)
                .args(words),
        )
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "Say where it is"]);
    project
}

/// Two checkouts of a commit that differ in directory, times and permissions.
fn checkouts(repository: &Path) -> [Project; 2] {
    ["022", "077"].map(|umask| Project::checkout(repository, umask))
}

fn executable(image: &Image) -> Vec<u8> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique());
    let container = docker(["create", &image.tag]);
    let path = file.to_str().expect("a UTF-8 path");
    let copy = Command::new("docker")
        .args(["cp", "--quiet", &format!("{container}:/app"), path])
        .output();
    remove(["rm", &container]);
    let copy = copy.expect("docker");
    assert!(copy.status.success(), "{}", text(&copy.stderr));
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(file).unwrap();
    bytes
}

/// Returns the image's ID, its creation time and configuration, and its layers.
fn inspect(image: &Image) -> [String; 3] {
    [
        "{{.Id}}",
        "{{.Created}} {{json .Config}}",
        "{{json .RootFS}}",
    ]
    .map(|format| docker(["image", "inspect", "--format", format, &image.tag]))
}

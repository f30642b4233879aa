//! The arguments that the Makefile passes to Docker. Most tests replace `docker` with a script that
//! prints its arguments.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use lifesign_e2e::{REPOSITORY, output, unique};
use serde_json::json;

use crate::engine::Image;

#[test]
fn command_and_port_are_in_the_image() {
    let command = r#"COMMAND=serve 'two words' '"$HOME"' 'C:\x' "#;
    let image = Image::make(&["EXAMPLE=service", command, "PORT=3000"]);

    let config = image.unwrap().config();

    assert_eq!(config["Entrypoint"], json!(["/app"]));
    assert_eq!(
        config["Cmd"],
        json!(["serve", "two words", "\"$HOME\"", "C:\\x"])
    );
    assert_eq!(config["ExposedPorts"], json!({ "3000/tcp": {} }));
}

#[test]
fn a_command_is_split_like_a_shell_does_and_not_executed() {
    let project = Project::new("[package]\nname = \"service\"\n");

    for (command, line) in [
        ("serve", r#"CMD ["serve"]"#),
        ("  -n  --help ''", r#"CMD ["-n","--help",""]"#),
        (r#"'a "b"' "c'd" e\ f"#, r#"CMD ["a \"b\"","c'd","e f"]"#),
        (r#"'C:\x'"#, r#"CMD ["C:\\x"]"#),
        (
            "$HOME `id` $(id) a,b ; &",
            r#"CMD ["$HOME","`id`","$(id)","a,b",";","&"]"#,
        ),
    ] {
        let printed = project.image(&[&format!("COMMAND={command}")]);
        assert_eq!(printed.lines().nth(2), Some(line), "{command}");
    }
    let printed = project.image(&[]);
    assert!(!printed.contains("CMD"), "{printed}");
    let output = project.make(&["COMMAND=\"no end"]);
    assert!(!output.status.success());
}

#[test]
fn version_is_the_tag_without_its_v_or_the_packages() {
    let project = Project::new("[package]\nname = \"service\"\nversion = \"0.3.0\"\n");
    let version = || project.variable("VERSION", &[]);

    let edit = |version: &str| {
        project.write(
            "Cargo.toml",
            &format!("[package]\nname = \"service\"\nversion = {version:?}\n"),
        )
    };

    assert_eq!(version(), "0.3.0");
    project.commit();
    assert_eq!(version(), "0.3.0");
    project.git(&["tag", "api-v9.9.9"]);
    assert_eq!(version(), "0.3.0");
    edit("0.4.0");
    assert_eq!(version(), "0.4.0-dirty");
    edit("0.3.0");
    project.git(&["tag", "v1.4.2"]);
    assert_eq!(version(), "1.4.2");
    edit("0.4.0");
    assert_eq!(version(), "1.4.2-dirty");
    project.commit();
    let commit = project.git(&["rev-parse", "--short", "HEAD"]);
    assert_eq!(version(), format!("1.4.2-1-g{commit}"));
    project.git(&["tag", "1.5.0"]);
    assert_eq!(version(), "1.5.0");
    assert_eq!(project.variable("VERSION", &["VERSION=7"]), "7");
}

/// The clone is what `actions/checkout` fetches by default. It has a tag only if the tag itself was
/// checked out.
#[test]
fn a_shallow_clone_has_its_commit_and_its_own_tag() {
    let origin = Project::new("[package]\nname = \"service\"\nversion = \"0.3.0\"\n");
    origin.commit();
    origin.git(&["tag", "v1.4.2"]);
    origin.write("src/main.rs", "fn main() {}");
    origin.commit();
    let url = format!("file://{}", origin.directory.display());

    for (branch, version) in [("main", "0.3.0"), ("v1.4.2", "1.4.2")] {
        let clone = Project {
            directory: Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique()),
        };
        let directory = clone.directory.to_str().expect("a UTF-8 path");
        let options = ["--quiet", "--depth=1", "--branch", branch];
        origin.git(&[&["clone"], &options[..], &[&url, directory]].concat());

        assert_eq!(clone.variable("VERSION", &[]), version, "{branch}");
        let commit = origin.git(&["rev-parse", &format!("{branch}^{{commit}}")]);
        assert_eq!(clone.variable("GIT_COMMIT", &[]), commit, "{branch}");
    }
}

#[test]
fn a_member_inherits_the_fields_of_its_workspace() {
    let project = Project::new(
        "[workspace]\nmembers = [\"services/*\"]\n[workspace.package]\nversion = \"2.0.0\"\nlicense = \"MIT\"\n",
    );
    project.write(
        "services/one/Cargo.toml",
        "[package]\nname = \"api\"\nversion.workspace = true\nlicense = { workspace = true }\n\
         [[bin]]\nname = \"jobs\"\n",
    );
    project.write(
        "services/two/Cargo.toml",
        "[package]\nname = \"jobs\"\nversion = \"3.0.0\"\ndescription = \"Jobs\"\n[dependencies]\nversion = \"9\"\n",
    );

    for (package, variable, value) in [
        ("api", "VERSION", "2.0.0"),
        ("api", "LICENSES", "MIT"),
        ("api", "DESCRIPTION", ""),
        ("api", "TITLE", "api"),
        ("jobs", "VERSION", "3.0.0"),
        ("jobs", "DESCRIPTION", "Jobs"),
    ] {
        let package = format!("PACKAGE={package}");
        assert_eq!(
            project.variable(variable, &[&package]),
            value,
            "{package} {variable}"
        );
    }
}

#[test]
fn make_warns_of_each_value_that_is_missing() {
    let project = Project::new("[package]\nname = \"service\"\nversion = \"0.3.0\"\n");
    let warnings = |make: &mut Command| {
        let output = make.output().expect("make");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let no_git = "no tag, commit or date from git: fatal: ";

    let warning = warnings(&mut project.command("image"));
    assert!(warning.contains(no_git), "{warning}");
    assert!(warning.contains("not a git repository"), "{warning}");
    assert_eq!(
        warnings(project.command("image").arg("GIT_COMMIT=6b1f0a5")),
        ""
    );
    project.commit();
    assert_eq!(warnings(&mut project.command("image")), "");

    let warning = warnings(
        project
            .command("image")
            .env("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1"),
    );
    assert!(warning.contains(no_git), "{warning}");
    assert!(
        warning.contains("git config --global --add safe.directory "),
        "{warning}"
    );

    project.write("Cargo.toml", "[workspace]\nmembers = [\"api\"]\n");
    let warning = warnings(&mut project.command("image"));
    let no_version = ": no version: pass PACKAGE=… or VERSION=…\n";
    assert!(warning.ends_with(no_version), "{warning}");
}

#[test]
fn the_workflow_builds_with_the_metadata_of_the_makefile() {
    let project = Project::new("[package]\nname = \"service\"\nversion = \"0.3.0\"\n");
    project.commit();

    let metadata = output(&mut project.command("metadata"));

    let printed = project.image(&[]);
    let (arguments, environment) = printed.split_once('\n').unwrap();
    let path = format!("{REPOSITORY}/.github/workflows/image.yml");
    let workflow = fs::read_to_string(path).unwrap();
    assert!(workflow.contains("make --silent metadata >>\"$GITHUB_ENV\"\n"));
    let lines: Vec<_> = metadata.lines().collect();
    assert_eq!(lines.len(), 8, "{metadata}");
    for line in lines {
        assert!(
            environment.lines().any(|variable| variable == line),
            "{line}: {printed}"
        );
        let (name, _) = line.split_once('=').unwrap();
        assert!(
            arguments.contains(&format!(" --build-arg {name} ")),
            "{name}: {arguments}"
        );
        let argument = format!("            {name}=${{{{ env.{name} }}}}\n");
        assert!(workflow.contains(&argument), "{argument}");
    }
}

/// A directory with the Makefile, and with a program `docker` that prints how it was called.
/// Removed when dropped.
struct Project {
    directory: PathBuf,
}

impl Project {
    fn new(manifest: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique());
        let project = Self { directory };
        let makefile = fs::read_to_string(format!("{REPOSITORY}/Makefile")).unwrap();
        project.write("Makefile", &makefile);
        project.write("Dockerfile", "FROM scratch\n");
        project.write("Cargo.toml", manifest);
        let docker = project.write("bin/docker", "#!/bin/sh\necho \"$*\"\ncat\nenv\n");
        fs::set_permissions(docker, fs::Permissions::from_mode(0o755)).unwrap();
        project
    }

    fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.directory.join(file);
        fs::create_dir_all(path.parent().expect("the project's directory")).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, target: &str) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut make = Command::new("make");
        make.current_dir(&self.directory)
            .args(["--silent", target])
            .env("PATH", format!("{}/bin:{path}", self.directory.display()))
            // Git must not find a repository above this directory, and make must not see variables
            // of the caller.
            .env("GIT_CEILING_DIRECTORIES", env!("CARGO_TARGET_TMPDIR"));
        for variable in [
            "VERSION",
            "GIT_COMMIT",
            "BUILD_DATE",
            "SOURCE_DATE_EPOCH",
            "PORT",
        ] {
            make.env_remove(variable);
        }
        make
    }

    fn make(&self, variables: &[&str]) -> Output {
        self.command("image")
            .args(variables)
            .output()
            .expect("make")
    }

    /// Runs `make image`. Returns Docker's arguments, the Dockerfile and the environment, as the
    /// script prints them.
    fn image(&self, variables: &[&str]) -> String {
        let output = self.make(variables);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the value of a build argument.
    fn variable(&self, name: &str, variables: &[&str]) -> String {
        let printed = self.image(variables);
        let (arguments, rest) = printed.split_once('\n').unwrap();
        assert!(
            arguments.contains(&format!(" --build-arg {name} ")),
            "{arguments}"
        );
        let value = rest
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")));
        value
            .unwrap_or_else(|| panic!("{name}: {printed}"))
            .to_owned()
    }

    /// Commits everything, to a new repository if there is none.
    fn commit(&self) {
        self.git(&["init", "--quiet", "--initial-branch=main"]);
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "--message", "Change"]);
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(&self.directory);
        for (key, value) in [("name", "test"), ("email", "test@git.invalid")] {
            git.args(["-c", &format!("user.{key}={value}")]);
        }
        output(git.args(arguments))
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

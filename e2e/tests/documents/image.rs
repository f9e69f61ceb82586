//! The image is built from all that the workspace needs, and the compose file passes on settings that exist.

use std::collections::BTreeSet;

use super::file;
use super::tables::{programs, variables};
use liveedgecast_e2e::publish::root;

#[test]
fn image_is_built_from_all_that_the_workspace_needs() {
    let (dockerfile, ignored) = (file("Dockerfile"), file(".dockerignore"));
    let manifest = file("Cargo.toml");
    let members = manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).expect("the members").0;
    for member in members.split(',').map(|member| member.trim().trim_matches('"')) {
        let copy = format!("COPY {member}/Cargo.toml {member}/\n");
        assert!(dockerfile.contains(&copy), "cargo reads every member's manifest: {copy}");
        let whole = dockerfile.contains(&format!("COPY {member} {member}\n"));
        let sent = ignored.lines().any(|line| line == format!("!{member}") || line == format!("!{member}/Cargo.toml"));
        assert!(sent, "{member} is not sent to the builder");
        if whole && root().join(member).join("build.rs").exists() {
            assert!(
                dockerfile.contains(&format!(" {member}/build.rs")),
                "{member}'s own dependencies for its build.rs come first too"
            );
        }
    }
}

#[test]
fn compose_passes_on_settings_that_exist_and_are_listed() {
    let [(_, command), _] = programs();
    let known: BTreeSet<String> = command.get_arguments().flat_map(variables).collect();
    let compose = file("docker-compose.yml");
    let passed = compose
        .split_once("environment:\n")
        .and_then(|(_, rest)| rest.split_once("    ports:"))
        .expect("an environment")
        .0;
    let names: Vec<&str> = passed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "))
        .map(|word| word.split('=').next().unwrap_or(word))
        .collect();
    assert!(names.contains(&"RTMP_PUSH_URL"), "{names:?}");
    for name in &names {
        assert!(known.contains(*name), "the activator has no setting {name}");
    }

    let guide = file("deploy/docs/edge.md");
    let section = guide.split_once("\n## In a container\n").and_then(|(_, rest)| rest.split_once("\n## "));
    let rows = section.expect("a section").0.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<&str> =
        rows.flat_map(|row| row.split(" | ").next().unwrap_or_default().split('`').skip(1).step_by(2)).collect();
    let substituted = compose.split("${").skip(1).filter_map(|rest| rest.split(":-").next());
    let whole = |name: &str| {
        let short = command.get_arguments().map(variables).find(|both| both.len() == 2 && both[0] == name)?;
        Some(short[1].clone())
    };
    let with_prefix: BTreeSet<String> = names.iter().filter_map(|name| whole(name)).collect();
    let without: BTreeSet<&str> = names.into_iter().filter(|name| whole(name).is_none()).collect();
    for name in &with_prefix {
        assert!(without.contains(name.as_str()), "docker-compose.yml passes {name} on by one of its names only");
    }
    let all: BTreeSet<&str> = without.into_iter().chain(substituted).collect();
    assert_eq!(listed, all, "edge.md lists the variables of docker-compose.yml");
}

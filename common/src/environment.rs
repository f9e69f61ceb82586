//! The variables of both programs by name. In: the environment of the process. Out: a program's arguments, and the mistakes in names that begin with
//! our prefix. Next: the `config` of each binary.
//!
//! Every variable begins with `LIVEEDGECAST_`. The name without the prefix is read, too, if an `Args` declares it so; `RUST_LOG` is the other name of
//! `LIVEEDGECAST_LOG_FILTER`. Both programs know the names of both, because a container's environment is often shared.
//!
//! Note: Kubernetes puts the addresses of all Services of a namespace into the environment of its pods (`LIVEEDGECAST_CONTROL_SERVICE_HOST`), and our
//! Services are called `liveedgecast` and `liveedgecast-…`, so such names are nobody's mistake.

use std::collections::BTreeMap;

use clap::{Command, CommandFactory, Parser};

use crate::config::Problems;

/// The beginning of the name of every variable.
pub const PREFIX: &str = "LIVEEDGECAST_";

/// The commit that the program was built from, if whoever built it said so.
pub const COMMIT: &str = match option_env!("BUILD_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The variables of both programs.
pub const VARIABLES: &[&str] = &[
    "LIVEEDGECAST_ACTIVATOR",
    "LIVEEDGECAST_ACTIVATOR_PEERS",
    "LIVEEDGECAST_ADMIN_TOKEN",
    "LIVEEDGECAST_ADMIN_TOKEN_FILE",
    "LIVEEDGECAST_API",
    "LIVEEDGECAST_BASELINE_WORKERS",
    "LIVEEDGECAST_CAPACITY",
    "LIVEEDGECAST_CONFIG",
    "LIVEEDGECAST_CONTROL_LISTEN",
    "LIVEEDGECAST_CONTROL_SECRET",
    "LIVEEDGECAST_CONTROL_SECRET_FILE",
    "LIVEEDGECAST_COOLDOWN",
    "LIVEEDGECAST_DRAIN_TIMEOUT",
    "LIVEEDGECAST_ENCRYPTION",
    "LIVEEDGECAST_EVENTS_SECRET",
    "LIVEEDGECAST_EVENTS_SECRET_FILE",
    "LIVEEDGECAST_EVENTS_URL",
    "LIVEEDGECAST_FLEET",
    "LIVEEDGECAST_GATHER",
    "LIVEEDGECAST_GRACE",
    "LIVEEDGECAST_HANDOFF",
    "LIVEEDGECAST_HOLD_TIMEOUT",
    "LIVEEDGECAST_HTTP_LISTEN",
    "LIVEEDGECAST_INCIDENT_DIR",
    "LIVEEDGECAST_INCIDENT_MAX_BYTES",
    "LIVEEDGECAST_INTERNAL_TLS_CA_FILE",
    "LIVEEDGECAST_INTERNAL_TLS_CERT_FILE",
    "LIVEEDGECAST_INTERNAL_TLS_KEY_FILE",
    "LIVEEDGECAST_INTERNAL_TLS_NAME",
    "LIVEEDGECAST_INTRODUCER",
    "LIVEEDGECAST_JWT_AUDIENCE",
    "LIVEEDGECAST_JWT_ISSUER",
    "LIVEEDGECAST_JWT_JWKS_URL",
    "LIVEEDGECAST_JWT_KEY_FILE",
    "LIVEEDGECAST_JWT_SECRET",
    "LIVEEDGECAST_JWT_SECRET_FILE",
    "LIVEEDGECAST_LINK_LISTEN",
    "LIVEEDGECAST_LOG_FILTER",
    "LIVEEDGECAST_LOG_FORMAT",
    "LIVEEDGECAST_MAX_CONNECTIONS",
    "LIVEEDGECAST_MAX_CONNECTIONS_PER_ADDRESS",
    "LIVEEDGECAST_MAX_STRANGERS_PER_ADDRESS",
    "LIVEEDGECAST_MAX_STREAMS_PER_ADDRESS",
    "LIVEEDGECAST_MAX_WORKERS",
    "LIVEEDGECAST_ON_PUBLISH_DONE_URL",
    "LIVEEDGECAST_ON_PUBLISH_FORMAT",
    "LIVEEDGECAST_ON_PUBLISH_ON_ERROR",
    "LIVEEDGECAST_ON_PUBLISH_SECRET",
    "LIVEEDGECAST_ON_PUBLISH_SECRET_FILE",
    "LIVEEDGECAST_ON_PUBLISH_TIMEOUT",
    "LIVEEDGECAST_ON_PUBLISH_URL",
    "LIVEEDGECAST_OPEN",
    "LIVEEDGECAST_OTLP_ENDPOINT",
    "LIVEEDGECAST_PUBLISHER_METRICS",
    "LIVEEDGECAST_PUBLISH_BURST",
    "LIVEEDGECAST_PUBLISH_KEYS",
    "LIVEEDGECAST_PUBLISH_KEYS_FILE",
    "LIVEEDGECAST_PUBLISH_RATE",
    "LIVEEDGECAST_REPLAY_WINDOW",
    "LIVEEDGECAST_REUSE_PORT",
    "LIVEEDGECAST_RTMPS_CERT_FILE",
    "LIVEEDGECAST_RTMPS_KEY_FILE",
    "LIVEEDGECAST_RTMPS_LISTEN",
    "LIVEEDGECAST_RTMP_LISTEN",
    "LIVEEDGECAST_RTMP_PUSH_URL",
    "LIVEEDGECAST_RTMP_PUSH_URL_FILE",
    "LIVEEDGECAST_SCALER_LISTEN",
    "LIVEEDGECAST_SCALER_TLS_CERT_FILE",
    "LIVEEDGECAST_SCALER_TLS_CLIENT_CA_FILE",
    "LIVEEDGECAST_SCALER_TLS_KEY_FILE",
    "LIVEEDGECAST_SCALE_IN",
    "LIVEEDGECAST_STAT_NAMES",
    "LIVEEDGECAST_STREAM_THREADS",
    "LIVEEDGECAST_TOKEN_FILES_OPTIONAL",
    "LIVEEDGECAST_TRUSTED_PROXIES",
    "LIVEEDGECAST_UPSTREAM_LAG",
    "LIVEEDGECAST_VIEW_TOKEN",
    "LIVEEDGECAST_VIEW_TOKEN_FILE",
    "LIVEEDGECAST_WORKER_DEPLOYMENT",
    "LIVEEDGECAST_WORKER_NAME",
];

/// Variables with our prefix that are not the programs': the compose file's, in a shell that also starts a program itself.
const OTHERS: [&str; 1] = ["LIVEEDGECAST_IMAGE"];

/// The name of a variable that an `Args` declares as `declared`: with the prefix. `None` if it is missing in [`VARIABLES`].
#[must_use]
pub fn variable(declared: &str) -> Option<&'static str> {
    let bare = match declared.strip_prefix(PREFIX).unwrap_or(declared) {
        "RUST_LOG" => "LOG_FILTER",
        bare => bare,
    };
    VARIABLES.iter().copied().find(|name| name.strip_prefix(PREFIX) == Some(bare))
}

/// The arguments of this process, and the mistakes in the names of variables. `--help`, and what clap itself refuses, end the process.
#[must_use]
pub fn parse<A: Parser>() -> (A, Problems) {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    let (command, problems) = named(A::command(), &environment);
    let version = format!("{} ({COMMIT})", env!("CARGO_PKG_VERSION"));
    // It is wanted once in the life of the process.
    let mut matches = command.version(&*version.leak()).get_matches();
    (A::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit()), problems)
}

/// A program's command line for its documents: every variable has its name with the prefix.
#[must_use]
pub fn command<A: CommandFactory>() -> Command {
    named(A::command(), &BTreeMap::new()).0
}

/// The command whose arguments read the name that is set: the one with the prefix, unless only the other one is.
fn named(command: Command, environment: &BTreeMap<String, String>) -> (Command, Problems) {
    let mut problems = Problems::new();
    // An empty variable counts as not set everywhere.
    let value = |name: &str| environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let command = command.mut_args(|argument| {
        let Some(declared) = argument.get_env().map(|name| name.to_string_lossy().into_owned()) else {
            return argument;
        };
        let Some(name) = variable(&declared) else { return argument };
        match (value(name), value(&declared)) {
            (Some(one), Some(other)) if one != other => {
                problems.add(name, format_args!("is also given as {declared}, with another value: remove one of them"));
                argument.env(name)
            }
            (None, Some(_)) => argument,
            _ => argument.env(name),
        }
    });
    for name in environment.keys().filter(|name| name.starts_with(PREFIX)) {
        let is_known = VARIABLES.contains(&name.as_str()) || OTHERS.contains(&name.as_str());
        if !is_known && !is_of_a_service(name, &environment[name]) {
            match nearest(name) {
                Some(near) => problems.add(name, format_args!("is no setting: did you mean {near}?")),
                None => problems.add(name, "is no setting: remove it, or correct its name; --help lists them"),
            }
        }
    }
    (command, problems)
}

/// True for a variable by which Kubernetes (or Docker, with links) tells the address of a Service.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let protocol = |text: &str| ["TCP", "UDP", "SCTP"].contains(&text.split('_').next().unwrap_or_default());
    let of_a_port = |rest: &str| rest.split_once('_').is_some_and(|(port, rest)| is_port(port) && protocol(rest));
    name.ends_with("_SERVICE_HOST")
        || (name.contains("_SERVICE_PORT") && is_port(value))
        || (name.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme)))
        || name.match_indices("_PORT_").any(|(at, found)| of_a_port(&name[at + found.len()..]))
}

/// The variable whose name differs least, if it is near enough to be what was meant: a third of the letters may differ.
fn nearest(name: &str) -> Option<&'static str> {
    let near = VARIABLES.iter().copied().min_by_key(|known| distance(name, known))?;
    let letters = |name: &str| name.len() - PREFIX.len();
    (distance(name, near) <= letters(name).max(letters(near)).div_ceil(3)).then_some(near)
}

/// The number of letters to insert, remove or replace (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, there) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *there);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "x")]
    struct Sample {
        #[arg(long, env = "PUBLISH_KEYS")]
        keys: Option<String>,
        #[arg(long, env = "RUST_LOG")]
        log: Option<String>,
        #[arg(long, env = "LIVEEDGECAST_OPEN")]
        open: Option<String>,
    }

    /// The names that the arguments read, and the mistakes.
    fn read(environment: &[(&str, &str)]) -> (Vec<String>, String) {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (command, problems) = named(<Sample as clap::CommandFactory>::command(), &environment);
        let names = command.get_arguments().filter_map(|argument| argument.get_env());
        let names = names.map(|name| name.to_string_lossy().into_owned()).collect();
        (names, problems.into_result().map_or_else(|problems| problems.to_string(), |()| String::new()))
    }

    #[test]
    fn name_with_the_prefix_is_read_unless_only_the_other_one_is_set() {
        let with_prefix = ["LIVEEDGECAST_PUBLISH_KEYS", "LIVEEDGECAST_LOG_FILTER", "LIVEEDGECAST_OPEN"];
        assert_eq!(read(&[]), (with_prefix.map(str::to_owned).into(), String::new()));
        let (names, mistakes) =
            read(&[("PUBLISH_KEYS", "a"), ("RUST_LOG", "info"), ("OPEN", "yes"), ("LIVEEDGECAST_PUBLISH_KEYS", " ")]);
        assert_eq!((names.join(" "), mistakes.as_str()), ("PUBLISH_KEYS RUST_LOG LIVEEDGECAST_OPEN".to_owned(), ""));
        let (names, mistakes) = read(&[("PUBLISH_KEYS", "same"), ("LIVEEDGECAST_PUBLISH_KEYS", "same")]);
        assert_eq!((names[0].as_str(), mistakes.as_str()), ("LIVEEDGECAST_PUBLISH_KEYS", ""));
    }

    #[test]
    fn two_names_with_two_values_are_a_mistake_that_shows_neither() {
        let (_, mistakes) = read(&[("PUBLISH_KEYS", "s3cret"), ("LIVEEDGECAST_PUBLISH_KEYS", "other-s3cret")]);
        assert!(mistakes.contains("LIVEEDGECAST_PUBLISH_KEYS: is also given as PUBLISH_KEYS"), "{mistakes}");
        assert!(!mistakes.contains("s3cret"), "{mistakes}");
    }

    #[test]
    fn misspelt_variable_is_a_mistake_that_proposes_the_nearest() {
        for (name, part) in [
            (
                "LIVEEDGECAST_PUBLSH_KEYS",
                "LIVEEDGECAST_PUBLSH_KEYS: is no setting: did you mean LIVEEDGECAST_PUBLISH_KEYS?",
            ),
            ("LIVEEDGECAST_PUSH_URL", "did you mean LIVEEDGECAST_RTMP_PUSH_URL?"),
            ("LIVEEDGECAST_REUSEPORT", "did you mean LIVEEDGECAST_REUSE_PORT?"),
            ("LIVEEDGECAST_REUZE_PORT", "did you mean LIVEEDGECAST_REUSE_PORT?"),
            ("LIVEEDGECAST_COLOUR_OF_THE_OPERATOR", "is no setting: remove it"),
        ] {
            let (_, mistakes) = read(&[(name, "s3cret")]);
            assert!(mistakes.starts_with("1 mistake") && mistakes.contains(part), "{mistakes}");
            assert!(!mistakes.contains("s3cret"), "{mistakes}");
        }
    }

    #[test]
    fn variables_of_others_are_no_mistake() {
        for (name, value) in [
            ("PUBLSH_KEYS", "a"),
            ("LIVEEDGECAST_IMAGE", "liveedgecast:1"),
            ("LIVEEDGECAST_SERVICE_HOST", "10.0.0.1"),
            ("LIVEEDGECAST_SERVICE_PORT", "1935"),
            ("LIVEEDGECAST_SERVICE_PORT_RTMP", "1935"),
            ("LIVEEDGECAST_PORT", "tcp://10.0.0.1:1935"),
            ("LIVEEDGECAST_PORT_1935_TCP", "tcp://10.0.0.1:1935"),
            ("LIVEEDGECAST_PORT_1935_TCP_ADDR", "10.0.0.1"),
            ("LIVEEDGECAST_CONTROL_PORT_6001_TCP_PROTO", "tcp"),
            ("LIVEEDGECAST_WORKER_NAME", "a setting of the other program"),
        ] {
            assert_eq!(read(&[(name, value)]).1, "", "{name}");
        }
    }

    #[test]
    fn variables_are_sorted_and_have_the_prefix() {
        assert!(VARIABLES.is_sorted(), "{VARIABLES:?}");
        assert!(VARIABLES.iter().all(|name| name.starts_with(PREFIX)));
    }
}

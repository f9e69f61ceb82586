//! The generated tables: settings of both programs, metrics of both, events of the log, rooms. In: the programs' own definitions. Out: rows between
//! two marks in a guide, compared or, with `UPDATE_DOCUMENTS`, written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::sync::{Mutex, PoisonError};

use clap::CommandFactory;
use liveedgecast_activator::events::Fact;
use liveedgecast_common::control::totals::{FAMILIES, TotalKind};
use liveedgecast_common::environment;
use liveedgecast_e2e::publish::root;

use super::{file, files};

/// The name of the variable that makes this test write.
const UPDATE: &str = "UPDATE_DOCUMENTS";
/// The beginning of every metric's name.
pub(super) const PREFIX: &str = "liveedgecast_";

/// Several tables are in one file.
static WRITING: Mutex<()> = Mutex::new(());

/// Compares what is between the mark and `<!-- end -->` with `table`, or writes it.
fn assert_table(path: &str, mark: &str, table: &str) {
    let _one_at_a_time = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let (begin, end) = (format!("<!-- {mark} -->\n"), "<!-- end -->");
    let text = file(path);
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{path} has no {begin}"));
    let (shown, after) = rest.split_once(end).unwrap_or_else(|| panic!("{path}: no end of {mark}"));
    if shown == table {
        return;
    }
    if std::env::var_os(UPDATE).is_some() {
        fs::write(root().join(path), format!("{before}{begin}{table}{end}{after}")).expect("a document");
        return;
    }
    let differs = table.lines().find(|line| !shown.lines().any(|other| other == *line)).unwrap_or("a row too many");
    panic!(
        "{path}, {mark}: not as the programs have it, first {differs:?}\n{UPDATE}=1 cargo test -p liveedgecast-e2e --test documents"
    );
}

/// Text in a cell.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// The command lines of both programs.
pub(super) fn programs() -> [(&'static str, clap::Command); 2] {
    [
        ("liveedgecast-activator", liveedgecast_activator::config::Args::command()),
        ("liveedgecast-worker", liveedgecast_worker::config::Args::command()),
    ]
}

/// The arguments of a command and of all its commands.
pub(super) fn arguments(command: &clap::Command) -> Vec<&clap::Arg> {
    let mut all: Vec<_> = command.get_arguments().collect();
    all.extend(command.get_subcommands().flat_map(arguments));
    all
}

/// The names of an argument's variable: with the prefix, which is the first, and the one that is declared, if that has none.
pub(super) fn variables(argument: &clap::Arg) -> Vec<String> {
    let Some(declared) = argument.get_env().map(|name| name.to_string_lossy().into_owned()) else { return Vec::new() };
    let name = environment::variable(&declared);
    let name = name.unwrap_or_else(|| panic!("common/src/environment.rs does not list {declared}")).to_owned();
    if declared == name { vec![name] } else { vec![name, declared] }
}

/// The table of a program's settings, from the definitions that its command line is read with.
fn settings(command: &clap::Command) -> String {
    let mut table = "| flag · variable | what | default |\n| --- | --- | --- |\n".to_owned();
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let Some(flag) = argument.get_long() else { continue };
        let variable = variables(argument).first().map(|name| format!(" · `{name}`"));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let (what, default) = match help.split_once("[default: ") {
            Some((what, default)) => (what.trim().to_owned(), default.trim_end_matches(']').to_owned()),
            None => (help, String::new()),
        };
        let _ =
            writeln!(table, "| `--{flag}`{} | {} | {} |", variable.unwrap_or_default(), cell(&what), cell(&default));
    }
    table
}

/// The rows of a command's own commands: the words, and what it does.
fn rows_of_commands(command: &clap::Command, words: &str, table: &mut String) {
    for own in command.get_subcommands() {
        let named = format!("{words} {}", own.get_name());
        if own.has_subcommands() {
            rows_of_commands(own, &named, table);
            continue;
        }
        let place = |argument: &&clap::Arg| argument.is_positional();
        let places = own.get_arguments().filter(place).map(|argument| {
            let name = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
            let name = name.unwrap_or_else(|| argument.get_id().to_string().to_uppercase());
            if argument.is_required_set() { format!(" {name}") } else { format!(" [{name}]") }
        });
        let flags =
            own.get_arguments().filter(|argument| !argument.is_positional() && argument.get_help_heading().is_none());
        let flags = flags.filter_map(|argument| argument.get_long()).map(|flag| format!("`--{flag}`"));
        let flags = flags.collect::<Vec<_>>().join(" ");
        let about = own.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(table, "| `{}{}` | {} | {flags} |", named.trim(), places.collect::<String>(), cell(&about));
    }
}

#[test]
fn table_of_commands_is_the_programs_own() {
    let [(_, activator), _] = programs();
    let mut table = "| command | what | options of its own |\n| --- | --- | --- |\n".to_owned();
    rows_of_commands(&activator, "", &mut table);
    assert_table("deploy/docs/commands.md", "commands", &table);
}

#[test]
fn variables_of_both_programs_are_listed() {
    for (program, command) in programs() {
        let read = command.get_arguments().flat_map(variables).count();
        assert!(read > 10, "{program}: {read}");
    }
}

#[test]
fn tables_of_settings_are_the_programs_own() {
    for (program, command) in programs() {
        assert_table("deploy/docs/configuration.md", &format!("settings: {program}"), &settings(&command));
    }
}

/// A metric.
#[derive(Default)]
pub(super) struct Metric {
    kind: String,
    help: String,
    /// Labels, and the values that exist from the start.
    pub(super) labels: BTreeMap<String, BTreeSet<String>>,
}

/// The metrics of a page in Prometheus' text format.
fn from_page(page: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.clone_into(&mut metrics.entry(name.to_owned()).or_default().help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut metrics.entry(name.to_owned()).or_default().kind);
        } else if let Some((sample, rest)) = line.split_once('{') {
            let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| sample.strip_suffix(part));
            let name = parts.chain([sample]).find(|name| metrics.contains_key(*name));
            let labels = name.and_then(|name| metrics.get_mut(name)).map(|metric| &mut metric.labels);
            let (Some(labels), Some((pairs, _))) = (labels, rest.split_once('}')) else { continue };
            for (label, value) in pairs.split(',').filter_map(|pair| pair.split_once('=')) {
                if label != "le" {
                    labels.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    metrics
}

/// The metrics that a page leaves out because they have no row before the first event: those with labels whose values are not known
/// beforehand. They are read from the calls that register them.
fn from_source(folder: &str) -> BTreeMap<String, Metric> {
    const MAKERS: [(&str, &str); 3] =
        [("counters(", "counter"), ("IntCounterVec::new(opts(", "counter"), ("IntGaugeVec::new(opts(", "gauge")];
    let mut metrics = BTreeMap::new();
    for (_, text) in files(&[folder], &[".rs"]) {
        // A call may be on one line or on several.
        let text = text.lines().map(str::trim).collect::<Vec<_>>().join("\n").replace("(\n", "(");
        for (maker, kind) in MAKERS {
            for call in text.split(maker).skip(1) {
                let call = call.split(";\n").next().unwrap_or_default().split(")?").next().unwrap_or_default();
                let literals: Vec<&str> = call.split('"').skip(1).step_by(2).collect();
                let [name, help, labels @ ..] = literals.as_slice() else { continue };
                if !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                    continue;
                }
                let labels = labels.iter().map(|label| ((*label).to_owned(), BTreeSet::new())).collect();
                metrics.insert(
                    format!("{PREFIX}{name}"),
                    Metric { kind: kind.to_owned(), help: (*help).to_owned(), labels },
                );
            }
        }
    }
    metrics
}

/// Every metric of both programs.
pub(super) fn metrics() -> BTreeMap<String, Metric> {
    let activator = liveedgecast_activator::metrics::ActivatorMetrics::new().expect("metrics").text();
    let worker = liveedgecast_worker::metrics::WorkerMetrics::new().expect("metrics");
    worker.phase(liveedgecast_worker::drain::WorkerPhase::Serving);
    // Its rows come with the first failure at a destination.
    worker.upstream.failed("any", liveedgecast_worker::upstream::Fault::Lost);
    let mut all = from_source("activator/src");
    all.extend(from_source("worker/src"));
    for family in FAMILIES {
        let kind = match family.kind {
            TotalKind::Counter => "counter",
            TotalKind::Gauge | TotalKind::Highest => "gauge",
            TotalKind::Histogram(_) => "histogram",
        };
        let labels = family.labels.iter().map(|label| ((*label).to_owned(), BTreeSet::new())).collect();
        let metric = Metric { kind: kind.to_owned(), help: family.help.to_owned(), labels };
        all.insert(format!("{PREFIX}{}", family.name), metric);
    }
    all.extend(from_page(&activator));
    all.extend(from_page(&worker.text()));
    all.extend(from_page(&liveedgecast_common::metrics::text(&worker.totals)));
    for label in ["destination", "commit", "version"] {
        all.values_mut().filter_map(|metric| metric.labels.get_mut(label)).for_each(BTreeSet::clear);
    }
    all
}

#[test]
fn table_of_metrics_has_those_of_both_programs() {
    let mut table = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for (name, metric) in metrics() {
        let labels = metric.labels.iter().map(|(label, values)| {
            let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
            if values.is_empty() { format!("`{label}`") } else { format!("`{label}`: {}", values.join(", ")) }
        });
        let labels = labels.collect::<Vec<_>>().join("; ");
        let _ = writeln!(table, "| `{name}` | {} | {labels} | {} |", metric.kind, cell(&metric.help));
    }
    assert_table("deploy/docs/operations.md", "metrics", &table);
}

/// The levels of the lines that have each event, by the constant's name: the macro before the name, or the one after it where the name is
/// given to a variable first.
fn levels() -> BTreeMap<String, BTreeSet<&'static str>> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    let mut levels: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    let sources = files(&["activator/src", "worker/src", "common/src"], &[".rs"]);
    for (_, text) in sources.iter().filter(|(path, _)| !path.ends_with("_tests.rs")) {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let macros = |text: &str| {
            let found = LEVELS.into_iter().flat_map(|level| {
                let at = text.match_indices(&format!("{level}!(")).map(|(at, _)| at).collect::<Vec<_>>();
                at.into_iter().map(move |at| (at, level))
            });
            found.collect::<BTreeMap<_, _>>()
        };
        for (at, _) in code.match_indices("event::") {
            let (before, rest) = (&code[..at], &code[at + "event::".len()..]);
            let name: String = rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            if name.len() < 3 {
                continue;
            }
            let statement = &before[before.rfind(';').unwrap_or(0)..];
            let level = macros(statement).into_values().next_back().or_else(|| macros(rest).into_values().next());
            levels.entry(name).or_default().extend(level);
        }
    }
    levels
}

/// The events of the log: the name of the constant and the comment above it, by the event.
fn log_events() -> BTreeMap<String, (String, String)> {
    let (mut comment, mut rows) = (String::new(), BTreeMap::new());
    for line in file("common/src/event.rs").lines() {
        if let Some(more) = line.strip_prefix("///") {
            comment.push_str(more);
        } else if let Some((_, rest)) = line.split_once(": &str = \"") {
            let name = line.split([' ', ':']).nth(2).unwrap_or_default().to_owned();
            let when = std::mem::take(&mut comment).trim().to_owned();
            rows.insert(rest.trim_end_matches("\";").to_owned(), (name, when));
        }
    }
    assert!(rows.len() >= 7, "{rows:?}");
    rows
}

#[test]
fn table_of_events_has_those_of_the_log() {
    let mut table = "| event | level | when |\n| --- | --- | --- |\n".to_owned();
    let levels = levels();
    for (event, (name, when)) in log_events() {
        let level = levels.get(&name).unwrap_or_else(|| panic!("no line is logged with {name}"));
        let level = level.iter().copied().collect::<Vec<_>>().join(", ");
        let _ = writeln!(table, "| `{event}` | {level} | {} |", cell(&when));
    }
    assert_table("deploy/docs/operations.md", "events", &table);
}

#[test]
fn table_of_the_vocabulary_has_every_event_that_is_told() {
    let mut table = "| event | when | fields |\n| --- | --- | --- |\n".to_owned();
    let log = log_events();
    for fact in Fact::samples() {
        let event = fact.event();
        let (_, when) = log.get(event).unwrap_or_else(|| panic!("the log has no {event}"));
        let when = when.split_once(": `class` is").map_or(when.as_str(), |(when, _)| when).trim_end_matches('.');
        let fields: Vec<_> = fact.field_names().iter().map(|field| format!("`{field}`")).collect();
        let _ = writeln!(table, "| `{event}` | {} | {} |", cell(when), fields.join(", "));
    }
    assert_table("deploy/docs/events.md", "vocabulary", &table);
}

#[test]
fn table_of_rooms_has_the_order_of_the_structure_test() {
    let mut table = "| crate | rooms, lowest first |\n| --- | --- |\n".to_owned();
    let order = file("e2e/tests/structure/main.rs");
    for name in ["activator", "worker", "common"] {
        let declared = order.split_once(&format!("\"{name}\",")).and_then(|(_, rest)| rest.split_once(']'));
        let rooms: Vec<_> =
            declared.expect("an order").0.split('"').skip(1).step_by(2).map(|room| format!("`{room}`")).collect();
        assert!(rooms.len() >= 10, "{name}: {rooms:?}");
        let _ = writeln!(table, "| {name} | {} |", rooms.join(" · "));
    }
    assert_table("deploy/docs/architecture.md", "rooms", &table);
}

#[test]
fn prometheus_rule_is_made_from_the_rules() {
    let (rules, manifest) =
        ("deploy/observability/prometheus/rules.yaml", "deploy/components/monitoring/programs/prometheus-rule.yaml");
    let (text, rules) = (file(manifest), file(rules));
    let (_, groups) = rules.split_once("\ngroups:\n").expect("the groups of rules");
    let (before, shown) = text.split_once("\nspec:\n").expect("the spec of the object");
    let indented = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") };
    let spec = "  groups:\n".to_owned() + &groups.lines().map(indented).collect::<String>();
    if shown == spec {
        return;
    }
    if std::env::var_os(UPDATE).is_some() {
        fs::write(root().join(manifest), format!("{before}\nspec:\n{spec}")).expect("a manifest");
        return;
    }
    panic!("{manifest}: not as the rules are\n{UPDATE}=1 cargo test -p liveedgecast-e2e --test documents");
}

//! Every rule fails on a made-up source that breaks it, and is silent about the same source put right.

use crate::rules::{Order, Rule, violations};
use crate::source::Tree;

const ORDER: Order = Order {
    rooms: &[("activator", &["low", "middle", "high"])],
    entry_points: &["activator/src/high/entry.rs", "common/src/control/"],
    conventions: &["State"],
};

type Files<'a> = &'a [(&'a str, &'a str)];

/// The rooms of [`ORDER`], the generated module of `common`, and these files.
fn tree(files: Files<'_>) -> Tree {
    let mut tree = Tree::default();
    let base = [
        ("activator/src/lib.rs", "pub mod low; pub mod middle; pub mod high;"),
        ("activator/src/low.rs", "//! Low."),
        ("activator/src/middle/mod.rs", "//! Middle."),
        ("activator/src/high/mod.rs", "//! High."),
        ("common/src/control/mod.rs", "pub mod wire { tonic::include_proto!(\"x.v1\"); }"),
    ];
    for (path, text) in base.iter().chain(files) {
        tree.0.insert((*path).to_owned(), (*text).to_owned());
    }
    tree
}

fn broken(files: Files<'_>) -> Vec<Rule> {
    violations(&tree(files), &ORDER).into_iter().map(|violation| violation.rule).collect()
}

/// Asserts that the first files break this rule, once, and the second ones none.
#[track_caller]
fn assert_rule(rule: Rule, wrong: Files<'_>, right: Files<'_>) {
    assert_eq!(broken(wrong), [rule]);
    assert_eq!(broken(right), []);
}

const LOW: &str = "activator/src/low.rs";
const MIDDLE: &str = "activator/src/middle/mod.rs";
const DEEP: &str = "activator/src/middle/deep.rs";
const HIGH: &str = "activator/src/high/mod.rs";
const ENTRY: &str = "activator/src/high/entry.rs";

#[test]
fn rooms_are_those_of_the_order() {
    assert_rule(
        Rule::Rooms,
        &[("activator/src/extra.rs", "")],
        &[("activator/src/main.rs", ""), ("activator/build.rs", "")],
    );
    let mut missing = tree(&[]);
    missing.0.remove(LOW);
    assert_eq!(violations(&missing, &ORDER)[0].key, "activator/low");
}

#[test]
fn imports_go_down_in_every_spelling() {
    assert_rule(Rule::Upward, &[(LOW, "use crate::high::X;")], &[(HIGH, "use crate::low::X;")]);
    assert_rule(Rule::Upward, &[(LOW, "pub use crate::{low::Y, high::X};")], &[(LOW, "use crate::low::{X, Y};")]);
    assert_rule(
        Rule::Upward,
        &[(LOW, "fn f() { crate::high::f(); }")],
        &[(LOW, "// crate::high::f\nfn f() { low::f(); }")],
    );
    assert_rule(Rule::Upward, &[(LOW, "fn f(x: &crate::high::X) {}")], &[(LOW, "const X: &str = \"crate::high\";")]);
    assert_rule(Rule::Upward, &[(LOW, "use super::high::X;")], &[(HIGH, "use super::low::X;")]);
    assert_rule(
        Rule::Upward,
        &[(DEEP, "use super::super::high::X;")],
        &[(DEEP, "use super::super::low::X; use super::Y;")],
    );
    assert_rule(
        Rule::Upward,
        &[(LOW, "mod m { use super::super::high::X; }")],
        &[(LOW, "mod m { use super::high::X; }")],
    );
    let in_macro = "fn f() { format!(\"{}\", crate::high::X); }";
    assert_rule(Rule::Upward, &[(LOW, in_macro)], &[(HIGH, in_macro)]);
}

#[test]
fn imports_of_tests_are_free() {
    let text = "#[cfg(test)] use crate::high::X; #[cfg(test)] mod tests { use crate::high::X; } #[cfg(test)] mod kit;";
    assert_eq!(broken(&[(LOW, text), ("activator/src/low/kit.rs", "use crate::high::X;")]), []);
    assert_eq!(broken(&[("activator/src/low_tests.rs", "use crate::high::X;")]), []);
}

#[test]
fn items_of_the_root_are_above_all_rooms() {
    assert_rule(
        Rule::Upward,
        &[(HIGH, "use crate::now;")],
        &[("activator/src/main.rs", "use liveedgecast_activator::now;")],
    );
}

#[test]
fn cycles_are_found_also_through_a_third() {
    let around = [(LOW, "use crate::high::X;"), (HIGH, "use crate::middle::X;"), (MIDDLE, "use crate::low::X;")];
    let found = violations(&tree(&around), &ORDER);
    let keys: Vec<&str> = found.iter().map(|violation| violation.key.as_str()).collect();
    assert_eq!(keys, ["activator: low → high", "activator: high, low, middle"]);
    assert_eq!(broken(&around), [Rule::Upward, Rule::Cycle]);
    assert_eq!(broken(&around[1..]), []);
}

#[test]
fn path_attributes_are_for_tests() {
    assert_rule(
        Rule::PathAttribute,
        &[(LOW, "#[path = \"x.rs\"] mod x;")],
        &[(LOW, "#[cfg(test)]\n#[path = \"x.rs\"]\nmod x;")],
    );
}

#[test]
fn generated_types_stay_at_the_entry_points() {
    for text in [
        "use liveedgecast_common::control::wire::Offer;",
        "use liveedgecast_common::{control::{wire::{Offer}}, key};",
        "use liveedgecast_common::control; fn f(x: control::wire::Offer) {}",
        "use liveedgecast_common::control::wire;",
    ] {
        assert_rule(Rule::Generated, &[(LOW, text)], &[(ENTRY, text)]);
    }
    let proto = ("activator/src/low/proto.rs", "pub mod proto { tonic::include_proto!(\"y\"); } fn f(x: proto::X) {}");
    assert_rule(Rule::Generated, &[proto, (LOW, "use crate::low::proto::proto::X;")], &[proto]);
    let exported = "pub use liveedgecast_common::control::wire::Offer;";
    assert_rule(Rule::Generated, &[(ENTRY, exported)], &[(ENTRY, &exported[4..])]);
}

#[test]
fn rooms_have_no_numbers() {
    assert_rule(Rule::RoomNumber, &[(LOW, "//! Room 3. In: x.")], &[(LOW, "//! The room of 3. In: room for x.")]);
    assert_rule(Rule::RoomNumber, &[(LOW, "// the next\n// room\n// 4.")], &[(LOW, "fn f() { \"room 4\"; }")]);
    assert_rule(Rule::RoomNumber, &[(LOW, "//! 8. [`low`] is low.")], &[(LOW, "//! 8. In [`low`].\n//! - [`low`]")]);
    assert_rule(Rule::RoomNumber, &[("deploy/docs/x.md", "see room 3")], &[("deploy/docs/x.md", "see there")]);
}

#[test]
fn citations_lead_somewhere() {
    let page = ("deploy/docs/architecture.md", "# Architecture\n\n## The stream ring\n\ntext\n");
    assert_rule(Rule::Citation, &[(LOW, "// DESIGN 4.2")], &[(LOW, "// by design 4.2")]);
    assert_rule(Rule::Citation, &[(LOW, "/// See notes.md.")], &[(LOW, "/// See notes.md."), ("deploy/notes.md", "")]);
    assert_rule(
        Rule::Citation,
        &[page, (LOW, "/// `architecture.md`; architecture.md, \"The\n/// ring\".")],
        &[page, (LOW, "/// `architecture.md`; architecture.md, \"The stream\n/// ring\".")],
    );
    assert_rule(Rule::Citation, &[("tools/x.sh", "x # as DESIGN says")], &[("tools/x.sh", "DESIGN=x")]);
    assert_rule(Rule::Citation, &[("common/proto/x.proto", "// (DESIGN 1)")], &[("common/proto/x.proto", "// (1)")]);
}

#[test]
fn type_names_stand_once() {
    let low = (LOW, "pub struct Desk; struct State;");
    assert_rule(
        Rule::TypeName,
        &[low, ("worker/src/x.rs", "enum Desk {}")],
        &[low, ("worker/src/x.rs", "enum State {}")],
    );
    assert_rule(
        Rule::TypeName,
        &[low, ("e2e/src/x.rs", "type Desk = u8;")],
        &[low, ("e2e/tests/x.rs", "struct Desk;"), ("worker/src/x.rs", "#[cfg(test)] mod tests { struct Desk; }")],
    );
}

#[test]
fn log_lines_have_events_that_are_constants() {
    assert_rule(
        Rule::EventLiteral,
        &[(LOW, "fn f() { tracing::info!(event = \"x.came\", \"x came\"); }")],
        &[(LOW, "fn f() { tracing::info!(event = event::X_CAME, \"x came\"); }")],
    );
    assert_rule(
        Rule::EventMissing,
        &[(LOW, "fn f() { warn!(x = f(event), \"event = x\"); }")],
        &[(LOW, "fn f() { warn!(event, x, \"x\"); warn!(x = y(a, b), event = event::X, \"x\"); }")],
    );
    let spared = "#[cfg(test)] fn f() { info!(\"x\"); } fn g() { println!(\"x\"); }";
    assert_eq!(broken(&[(LOW, spared)]), []);
}

#[test]
fn event_constants_are_unique_dotted_and_used() {
    let used = (LOW, "use x::{A_CAME, B_CAME};");
    let file = "common/src/event.rs";
    let right = "pub const A_CAME: &str = \"a.came\"; pub const B_CAME: &str = \"b.came\";";
    for wrong in [right.replace("b.came", "a.came"), right.replace("b.came", "b"), right.replace("B_CAME", "C_CAME")] {
        assert_rule(Rule::EventConstant, &[used, (file, &wrong)], &[used, (file, right)]);
    }
}

#[test]
fn doc_lines_begin_with_strong_words() {
    let strong = "/// The worker.\n".repeat(20);
    let weak = format!("{strong}/// Of it.\n/// [`Which`].\n\n/// `It`\n");
    assert_rule(Rule::Words, &[(LOW, &format!("{strong}/// Of it.\n/// It.\n"))], &[(LOW, &weak)]);
}

//! Every change, and each reason why one is not made.

use liveedgecast_common::handoff::limits::MAX_DESTINATIONS;
use liveedgecast_common::key::{AppName, Identity, Secret, StreamKey};

use super::*;
use crate::destinations::{RouteOrigin, StreamNames};

fn template(url: &str) -> PushTemplate {
    PushTemplate::parse_of_route(url).unwrap()
}

fn given(name: &str, url: &str) -> RouteDestination {
    RouteDestination { name: name.into(), url: template(url), required: false, enabled: true, backup: None }
}

/// `origin` and `archive` are in force, `spare` is switched off.
fn stream() -> StreamDestinations {
    let names = StreamNames {
        app: AppName::parse("live").unwrap(),
        key: StreamKey::parse("alpha").unwrap(),
        publisher: String::new(),
        secret: Secret::new("secret"),
    };
    let mut all = StreamDestinations::new(names, RouteOrigin::Fixed, Vec::new());
    all.follow(&file());
    all
}

fn file() -> Vec<RouteDestination> {
    vec![
        given("origin", "rtmp://one/live/{key}"),
        given("archive", "rtmp://two/rec/all"),
        RouteDestination { enabled: false, ..given("spare", "rtmp://three/live/{key}") },
    ]
}

fn after(changes: &[Change]) -> StreamDestinations {
    changes.iter().fold(stream(), |all, change| all.changed(change).unwrap().unwrap_or(all))
}

/// The destinations in force as `name host`, with the revision by which each was renewed.
fn shown(all: &StreamDestinations) -> String {
    let shown = |to: liveedgecast_common::handoff::ListedDestination| {
        let renewed = if to.renewed > 0 { format!("+{}", to.renewed) } else { String::new() };
        format!("{}{renewed} {}", to.name, to.url.host)
    };
    all.list().destinations.into_iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn enable(name: &str, enabled: bool) -> Change {
    Change::Patch { name: name.into(), url: None, enabled: Some(enabled) }
}

fn move_to(name: &str, url: &str) -> Change {
    Change::Patch { name: name.into(), url: Some(template(url)), enabled: None }
}

fn restart(name: &str) -> Change {
    Change::Restart { name: name.into() }
}

fn remove(name: &str) -> Change {
    Change::Remove { name: name.into() }
}

#[test]
fn every_change_gives_its_list() {
    let add = |name: &str| Change::Add(given(name, &format!("rtmp://{name}/live/{{key}}")));
    let table = [
        (vec![], 0, "origin one, archive two"),
        (vec![add("four")], 1, "origin one, archive two, four+1 four"),
        (vec![remove("origin")], 1, "archive two"),
        (vec![remove("origin"), remove("archive")], 2, ""),
        (vec![remove("origin"), add("origin")], 2, "archive two, origin+2 origin"),
        (vec![enable("spare", true)], 1, "origin one, archive two, spare three"),
        (vec![enable("origin", false)], 1, "archive two"),
        (vec![enable("origin", true)], 0, "origin one, archive two"),
        (vec![move_to("origin", "rtmp://five/live/{key}")], 1, "origin five, archive two"),
        (vec![move_to("origin", "rtmp://one/live/{key}")], 0, "origin one, archive two"),
        (vec![restart("origin"), restart("origin")], 2, "origin+2 one, archive two"),
        (vec![Change::Route(file())], 0, "origin one, archive two"),
    ];
    for (changes, revision, list) in table {
        let all = after(&changes);
        assert_eq!((all.revision(), shown(&all).as_str()), (revision, list), "{changes:?}");
    }
}

#[test]
fn change_that_cannot_be_made_says_why() {
    let add = |name: &str, url: &str| Change::Add(given(name, url));
    let same = |name: &str| ChangeError::SamePlace(name.into());
    let table = [
        (add("origin", "rtmp://six/live/{key}"), ChangeError::NameTaken),
        (add("other", "rtmps://one:1935/live/{key}"), same("origin")),
        (add("other", "rtmp://six/live/{publisher}"), ChangeError::Nameless),
        (move_to("origin", "rtmp://six/live/of-{publisher}"), ChangeError::Nameless),
        (move_to("origin", "rtmp://two/rec/all"), same("archive")),
        (remove("nobody"), ChangeError::UnknownDestination),
        (enable("nobody", true), ChangeError::UnknownDestination),
        (move_to("nobody", "rtmp://six/live/{key}"), ChangeError::UnknownDestination),
        (restart("spare"), ChangeError::SwitchedOff),
    ];
    for (change, error) in table {
        assert_eq!(stream().changed(&change).map(drop), Err(error), "{change:?}");
    }
    let bad = add("a/b", "rtmp://six/live/{key}");
    assert!(matches!(stream().changed(&bad), Err(ChangeError::Name(_))));
    let many: Vec<Change> =
        (3..MAX_DESTINATIONS).map(|n| add(&format!("n{n}"), &format!("rtmp://n{n}/live/{{key}}"))).collect();
    let full = after(&many);
    assert_eq!(full.changed(&add("more", "rtmp://more/live/{key}")).map(drop), Err(ChangeError::TooMany));
}

#[test]
fn changed_file_leaves_alone_what_the_api_has_changed() {
    let changed = |file: Vec<RouteDestination>, before: &[Change]| {
        let all = after(before);
        let all = all.changed(&Change::Route(file)).unwrap().unwrap_or(all);
        shown(&all)
    };
    let other = || vec![given("origin", "rtmp://six/live/{key}"), given("new", "rtmp://seven/live/{key}")];
    assert_eq!(changed(other(), &[]), "origin six, new seven");
    assert_eq!(changed(other(), &[move_to("origin", "rtmp://api/live/{key}")]), "origin api, new seven");
    assert_eq!(changed(other(), &[enable("archive", false)]), "origin six, new seven", "it stays, switched off");
    assert_eq!(changed(file(), &[enable("archive", false)]), "origin one");
    assert_eq!(changed(file(), &[remove("archive")]), "origin one");
    assert_eq!(
        changed(other(), &[Change::Add(given("mine", "rtmp://api/x/{key}"))]),
        "origin six, new seven, mine+1 api"
    );
    assert_eq!(changed(other(), &[Change::Add(given("mine", "rtmp://seven/live/{key}"))]), "origin six, mine+1 seven");
    assert_eq!(changed(file(), &[enable("spare", true), restart("origin")]), "origin+2 one, archive two, spare three");
    assert_eq!(changed(vec![], &[]), "");
}

#[test]
fn changed_file_touches_the_destinations_that_it_changes_alone() {
    let before = stream();
    let mut changed = file();
    changed.remove(1);
    changed[1].enabled = true;
    changed.push(given("new", "rtmp://seven/live/{key}"));
    let after = before.changed(&Change::Route(changed.clone())).unwrap().unwrap();
    assert_eq!((shown(&after).as_str(), after.revision()), ("origin one, spare three, new seven", 1));
    assert_eq!(after.all()[0], before.all()[0]);
    assert!(after.changed(&Change::Route(changed)).unwrap().is_none(), "the same file changes nothing");
    let back = after.changed(&Change::Route(file())).unwrap().unwrap();
    assert_eq!((back.all(), back.revision()), (before.all(), 2));
}

#[test]
fn destinations_of_a_changed_file_that_come_to_one_place_are_one() {
    let one = |name: &str, url: &str, required| RouteDestination { required, ..given(name, url) };
    let file = [one("own", "rtmp://six/live/{key}", false), one("same", "rtmps://six:1935/live/alpha", true)];
    let after = stream().changed(&Change::Route(file.to_vec())).unwrap().unwrap();
    assert_eq!(shown(&after), "own six");
    assert!(after.all()[0].required && after.all()[0].identity.is_some(), "{:?}", after.all());
    let unfit = [one("own", "rtmp://six/live/{key}", false), one("named", "rtmp://six/live/{publisher}", false)];
    assert_eq!(shown(&stream().changed(&Change::Route(unfit.to_vec())).unwrap().unwrap()), "own six");
}

#[test]
fn upstream_that_another_stream_has_taken_is_left_out_until_it_is_asked_for_again() {
    let mut all = stream();
    let taken: Vec<Identity> = all.identities().collect();
    assert_eq!(taken.len(), 1, "the archive takes no key");
    all.lose(&taken);
    assert_eq!((shown(&all).as_str(), all.identities().count()), ("origin one", 0));
    let next = all.changed(&Change::Add(given("four", "rtmp://four/live/{key}"))).unwrap().unwrap();
    assert_eq!(shown(&next), "origin one, four+1 four");
    for again in [enable("archive", true), restart("archive"), move_to("archive", "rtmp://six/rec/all")] {
        let next = all.changed(&again).unwrap().unwrap();
        assert_eq!(next.identities().count(), 1, "{again:?}");
    }
}

#[test]
fn views_show_neither_keys_nor_paths() {
    let all = after(&[enable("spare", true)]);
    let shown = serde_json::to_string(&all.views()).unwrap();
    assert!(
        shown.contains(r#"{"name":"spare","host":"three:1935","enabled":true,"required":false,"by_api":true}"#),
        "{shown}"
    );
    assert!(!shown.contains("alpha") && !format!("{all:?}").contains("alpha"), "{shown} {all:?}");
}

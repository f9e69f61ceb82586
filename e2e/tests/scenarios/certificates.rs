//! Certificates of an authority between activators and workers: all of one authority, strangers' ones, and ones that change or end.

use std::time::Duration;

use liveedgecast_e2e::certificate::{Authority, ProcessFiles};
use liveedgecast_e2e::process::kill;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, Settings, WorkerProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{SOON, now, until};

/// A lifetime that no scenario reaches.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

fn with(settings: Settings, files: &ProcessFiles) -> Settings {
    files.settings().iter().fold(settings, |settings, (name, value)| settings.with(name, value))
}

fn activator(sink: &Sink, files: &ProcessFiles) -> Settings {
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers();
    with(settings.with("HANDOFF", "link"), files)
}

fn worker(activator: &ActivatorProcess, settings: &[(&str, String)]) -> WorkerProcess {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    WorkerProcess::with(activator, &settings)
}

fn is_registered(activator: &ActivatorProcess, workers: usize) {
    until("the workers to be registered", || activator.workers().len() == workers);
}

/// The advice of the process's lines about certificates.
fn advice(log: &str) -> String {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let refused = lines.filter(|line| line["event"] == "certificate.refused");
    refused.map(|line| format!("{} ({})\n", line["advice"], line["error"])).collect()
}

#[test]
fn certificates_of_one_authority_carry_a_stream_by_way_of_either_activator() {
    let (authority, sink) = (Authority::new(), Sink::start());
    let files = [(); 3].map(|()| authority.process_files(LONG));
    let one = activator(&sink, &files[0]);
    let other = activator(&sink, &files[1]).with("ACTIVATOR_PEERS", &one.control().to_string());
    let one = one.with("ACTIVATOR_PEERS", &other.control().to_string()).start();
    let other = other.start();
    let mut settings = files[2].settings();
    // The worker finds the second activator by what the first one tells.
    settings.push(("CAPACITY", "5".to_owned()));
    let _worker = worker(&one, &settings);
    is_registered(&one, 1);
    is_registered(&other, 1);
    let _first = ffmpeg(Media::Both, &one.url(&format!("live/{}", key("one"))));
    sink.receives(50);
    let _second = ffmpeg(Media::Both, &other.url(&format!("live/{}", key("other"))));
    sink.receives_in_session(2, 50);
    for activator in [&one, &other] {
        until("the other activator's stream", || activator.streams().len() == 2);
        assert_eq!(advice(&activator.process.log()), "");
    }
}

#[test]
fn worker_without_a_certificate_of_the_authority_is_refused_and_costs_nobody_else() {
    let (authority, another, sink) = (Authority::new(), Authority::new(), Sink::start());
    let files = [(); 2].map(|()| authority.process_files(LONG));
    let activator = activator(&sink, &files[0]).start();
    let good = worker(&activator, &files[1].settings());
    is_registered(&activator, 1);
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("undisturbed"))));
    sink.receives(50);

    // It shows another authority's certificate, and knows no other authority: it refuses the activator.
    let foreign = another.process_files(LONG);
    let stranger = worker(&activator, &foreign.settings());
    until("the stranger's line", || advice(&stranger.process.log()).contains("LIVEEDGECAST_INTERNAL_TLS_CA_FILE here"));
    until("the activator's line", || advice(&activator.process.log()).contains("does not know the authority"));
    drop(stranger);
    // It knows the activator's authority: the activator refuses it.
    another.renew_process(&foreign, LONG, &[&authority, &another]);
    let stranger = worker(&activator, &foreign.settings());
    until("the stranger's line", || {
        advice(&stranger.process.log()).contains("does not know the authority of the certificate here")
    });
    until("the activator's line", || {
        advice(&activator.process.log()).contains("of no authority in LIVEEDGECAST_INTERNAL_TLS_CA_FILE here")
    });
    drop(stranger);
    let bare = worker(&activator, &[("ENCRYPTION", "on".to_owned())]);
    until("the bare worker's line", || advice(&bare.process.log()).contains("the peer asks for a certificate"));
    until("the activator's line", || advice(&activator.process.log()).contains("shows no certificate"));
    drop(bare);

    assert_eq!(activator.workers().len(), 1);
    assert!(publisher.is_running(), "{}", publisher.log());
    assert_eq!(advice(&good.process.log()), "");
    let before = sink.last().expect("a session").recording.frames();
    until("more frames", || sink.last().is_some_and(|session| session.recording.frames() > before + 50));
    assert_eq!(sink.connections(), 1, "the stream never moved");
}

#[test]
fn renewed_certificates_count_from_the_next_connection_on_and_disturb_no_stream() {
    let (authority, next, sink) = (Authority::new(), Authority::new(), Sink::start());
    let files = [(); 2].map(|()| authority.process_files(LONG));
    let activator = activator(&sink, &files[0]).start();
    let first = worker(&activator, &files[1].settings());
    is_registered(&activator, 1);
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("renewed"))));
    sink.receives(50);

    // A new authority, as when the old one is replaced: both processes' files change.
    for files in &files {
        next.renew_process(files, LONG, &[&next]);
    }
    let of_next = next.process_files(LONG);
    let second = worker(&activator, &of_next.settings());
    is_registered(&activator, 2);
    let (reloaded, lines) = ("certificates read again", activator.events("file.reloaded"));
    assert!(lines.iter().any(|line| line["message"] == reloaded), "{lines:?}");
    let before = sink.last().expect("a session").recording.frames();
    until("more frames", || sink.last().is_some_and(|session| session.recording.frames() > before + 50));
    assert_eq!(sink.connections(), 1, "the stream never moved");
    assert!(publisher.is_running(), "{}", publisher.log());
    // The first worker dies: the stream goes to the second one, by a link with the new certificates.
    kill(first.process.id());
    sink.receives_in_session(2, 50);
    assert!(publisher.is_running(), "{}", publisher.log());
    drop(second);
}

#[test]
fn certificate_that_ends_while_its_stream_is_live_ends_new_connections_alone() {
    const LIFE: Duration = Duration::from_secs(6);
    let (authority, sink) = (Authority::new(), Sink::start());
    let begun = now();
    let (ours, short) = (authority.process_files(LONG), authority.process_files(LIFE));
    let activator = activator(&sink, &ours).start();
    let ending = worker(&activator, &short.settings());
    is_registered(&activator, 1);
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("ending"))));
    sink.receives(50);
    until("the end of the certificate", || now() > begun + LIFE + Duration::from_secs(1));
    let _second = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("refused"))));
    until("the activator's line", || advice(&activator.process.log()).contains("certificate has expired"));
    until("the worker's line", || advice(&ending.process.log()).contains("finds the certificate here expired"));
    assert!(publisher.is_running(), "{}", publisher.log());
    authority.renew_process(&short, LONG, &[&authority]);
    sink.receives_in_session(2, 50);
}

#[test]
fn files_that_do_not_fit_end_the_start_with_the_fix() {
    let (authority, another, sink) = (Authority::new(), Authority::new(), Sink::start());
    let files = authority.process_files(LONG);
    authority.renew_process(&files, LONG, &[&another]);
    let mut process = activator(&sink, &files).start_anyhow();
    assert_eq!(process.wait(SOON).code(), Some(2));
    let log = process.log();
    assert!(
        log.contains("LIVEEDGECAST_INTERNAL_TLS_CERT_FILE: ") && log.contains("is not signed by an authority in"),
        "{log}"
    );
}

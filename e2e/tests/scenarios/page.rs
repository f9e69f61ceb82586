//! The page at `/` in a real Chromium, as people use it: every state, every button, every kind of screen.

use std::path::PathBuf;

use liveedgecast_e2e::browser::{Browser, Look};
use liveedgecast_e2e::haproxy::Haproxy;
use liveedgecast_e2e::publish::{Media, ffmpeg, root};
use liveedgecast_e2e::relay::{ActivatorProcess, Settings, WorkerProcess};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::until;
use tempfile::TempDir;

use crate::api::ADMIN;

const KEY: &str = "studio-k3y";

/// Destinations of all states, and the file that names them.
struct Stage {
    good: Sink,
    /// It is down until it comes back.
    away: Sink,
    _refusing: Sink,
    _silent: Sink,
    folder: TempDir,
}

impl Stage {
    fn set() -> Self {
        let [good, away, refusing, silent] = [0; 4].map(|_| Sink::start());
        away.go_away();
        refusing.refuse("NetStream.Publish.Denied");
        silent.say_nothing();
        let folder = tempfile::tempdir().expect("a folder");
        let url = |sink: &Sink| sink.url("live/{key}");
        let text = format!(
            "publishers: [{{name: studio, key: {KEY}}}]\nroutes:\n  default:\n    grace: 60s\n    destinations:\n      \
             - {{name: good, url: '{}'}}\n      - {{name: away, url: '{}'}}\n      - {{name: refusing, url: '{}'}}\n      \
             - {{name: silent, url: '{}'}}\n      - {{name: spare, url: '{}', enabled: false}}\n",
            url(&good),
            url(&away),
            url(&refusing),
            url(&silent),
            url(&good).replace("live/", "spare/"),
        );
        std::fs::write(folder.path().join("config.yaml"), text).expect("the file");
        Self { good, away, _refusing: refusing, _silent: silent, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    fn settings(&self) -> Settings {
        let settings =
            ActivatorProcess::pushing_to("").with("LIVEEDGECAST_CONFIG", self.file().to_str().expect("a path"));
        settings.with("ADMIN_TOKEN", ADMIN).with_external_workers()
    }

    /// Two activators that know each other.
    fn activators(&self) -> [ActivatorProcess; 2] {
        let settings = [self.settings(), self.settings()];
        let all = settings.iter().map(|settings| settings.control().to_string()).collect::<Vec<_>>().join(" ");
        let activators = settings.map(|settings| settings.with("ACTIVATOR_PEERS", &all).start());
        for activator in &activators {
            let heard = || activator.metric("liveedgecast_peers", &["state=\"synced\""]) == Some(1.0);
            until("the activators to hear each other", heard);
        }
        activators
    }
}

/// Writes a picture of the page for the guide, if `UPDATE_SCREENSHOTS` is set.
fn picture(page: &mut Browser, name: &str) {
    if std::env::var_os("UPDATE_SCREENSHOTS").is_some() {
        page.picture(&root().join(format!("deploy/docs/images/page-{name}.png")), false);
    }
}

#[test]
fn page_shows_every_state_and_every_button_does_what_it_says() {
    let stage = Stage::set();
    let activators = stage.activators();
    let mut page = Browser::start();
    page.open(activators[0].http(), "/", Look::DESKTOP);
    page.shows("", "Use the button Token.");
    page.unlock(ADMIN);
    page.shows("Publishers", "No publisher");

    let url = activators[0].url(&format!("live/{KEY}"));
    let mut publisher = ffmpeg(Media::Both, &url);
    page.shows("studio", "held, waits for a worker");
    page.shows("", "0 live · 1 waiting · 0 workers");
    page.shows("studio/good", "waits with its publisher");
    picture(&mut page, "held");

    let _first = WorkerProcess::with(&activators[0], &[("WORKER_NAME", "first")]);
    stage.good.receives(50);
    page.shows("studio", "live");
    page.shows("studio", "h264 · 320×180 · 25 fps · keyframe every 1.0 s · aac");
    page.shows("studio/good", "live");
    page.shows("studio/away", "down, dialed again");
    page.shows("studio/away", "Check host and port");
    page.shows("studio/refusing", "down, refuses");
    page.shows("studio/silent", "starting");
    page.shows("studio/spare", "off");
    page.shows("Workers/first", "ready");
    page.shows("Workers/first", "1 of ");
    // The picture of a destination that is live, as the browser has decoded it.
    let [width, height, colours] = page.canvas("studio/good");
    assert!((width, height) == (192, 108) && colours > 3, "{width}×{height}, {colours} colours");
    page.shows("studio/away", "has been sent no keyframe yet");
    page.shows("Activators", "this one");
    page.shows("Activators", "synced");
    page.shows("Activators", "KEDA has not asked this activator.");
    page.shows("Cold starts", "register");
    page.shows("Events", "start.cold");
    picture(&mut page, "live");

    destinations_obey(&mut page, &stage);
    workers_obey(&mut page, &activators[0]);

    // The other activator shows the stream, and passes the order on.
    page.open(activators[1].http(), "/", Look::DESKTOP);
    page.unlock(ADMIN);
    page.shows("studio/good", "live");
    let [width, height, _] = page.canvas("studio/good");
    assert_eq!((width, height), (192, 108), "through the other activator");
    let sessions = stage.good.sessions().len();
    page.press("studio", "Restart good of studio");
    stage.good.receives_in_session(sessions + 1, 10);

    publisher.kill();
    page.open(activators[0].http(), "/", Look::DESKTOP);
    page.unlock(ADMIN);
    page.shows("studio", "publisher lost, waited for");
    page.shows("studio/good", "live");
    picture(&mut page, "lost");
    let mut publisher = ffmpeg(Media::Both, &url);
    page.lacks("studio", "publisher lost");
    page.press("studio", "End the stream of studio");
    until("the publisher to be told", || !publisher.is_running());
    page.misses("studio");
    page.shows("Events", "ended on the page");
    page.has_not_complained();
}

/// Restart, disable, enable, add and remove.
fn destinations_obey(page: &mut Browser, stage: &Stage) {
    let count = || stage.good.sessions().len();
    let before = count();
    page.press("studio", "Restart good of studio");
    stage.good.receives_in_session(before + 1, 10);
    page.press("studio", "Disable good of studio");
    page.shows("studio/good", "off");
    until("the session to end", || stage.good.sessions().iter().all(|session| session.ended.is_some()));
    page.press("studio", "Enable good of studio");
    stage.good.receives_in_session(before + 2, 10);
    page.shows("studio/good", "live");

    stage.away.come_back();
    page.shows("studio/away", "live");
    stage.away.drop_connections();
    page.shows("studio/away", "1 reconnect");
    page.shows("studio/away", "before: ");

    let added = Sink::start();
    page.press("studio", "Add a destination to studio");
    page.fill("Name", "added");
    page.fill("URL", "nothing of the kind");
    page.press("", "Add");
    page.shows("", "the URL");
    page.misses("studio/added");
    page.press("studio", "Add a destination to studio");
    page.fill("Name", "added");
    page.fill("URL", &added.url("live/{key}"));
    page.press("", "Add");
    added.receives(10);
    page.shows("studio/added", "live");
    page.shows("studio/added", "changed here");
    page.press("studio", "Remove added of studio");
    page.misses("studio/added");
    until("the session to end", || added.only().ended.is_some());
}

/// Drain and undrain.
fn workers_obey(page: &mut Browser, activator: &ActivatorProcess) {
    let _second = WorkerProcess::with(activator, &[("WORKER_NAME", "second")]);
    page.shows("Workers/second", "ready");
    page.press("Workers", "Move the streams of first to others");
    page.shows("Workers/first", "drained");
    page.shows("Workers/second", "1 of ");
    page.press("Workers", "Let first take streams again");
    page.shows("Workers/first", "ready");
    page.press("Workers", "Move the streams of second to others");
    page.shows("Workers/first", "1 of ");
    page.shows("studio", "live");
}

#[test]
fn page_tells_codec_and_size_of_pictures_that_the_browser_cannot_decode() {
    let stage = Stage::set();
    let activator = stage.settings().start();
    let _worker = WorkerProcess::of(&activator);
    let _publisher = ffmpeg(Media::Hevc, &activator.url(&format!("live/{KEY}")));
    stage.good.receives(50);
    let mut page = Browser::start();
    page.open(activator.http(), "/", Look::DESKTOP);
    page.unlock(ADMIN);
    page.shows("studio/good", "h265 320×180: this browser cannot decode it");
    page.has_not_complained();
}

#[test]
fn page_serves_every_reader_on_every_screen_and_below_a_prefix() {
    let stage = Stage::set();
    let activator = stage.settings().start();
    let _worker = WorkerProcess::with(&activator, &[("WORKER_NAME", "first")]);
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{KEY}")));
    stage.good.receives(50);
    let ingress = Haproxy::below("/relay", activator.http());
    let mut page = Browser::start();
    let looks = [
        (Look::DESKTOP, "light"),
        (Look::DESKTOP.dark(), "dark"),
        (Look::PHONE, "phone"),
        (Look::PHONE.dark(), "phone-dark"),
    ];
    for (look, name) in looks {
        page.open(ingress.address(), "/relay/", look);
        page.unlock(ADMIN);
        page.shows("studio/refusing", "down, refuses");
        page.canvas("studio/good");
        page.is_well_made();
        if name != "light" {
            picture(&mut page, name);
        }
    }
    let sessions = stage.good.sessions().len();
    // The page is drawn anew meanwhile, and the focus stays.
    page.press_by_keyboard("Restart good of studio");
    stage.good.receives_in_session(sessions + 1, 10);
    assert_eq!(page.focus().as_deref(), Some("Restart good of studio"));
    page.press_by_keyboard("Disable good of studio");
    page.shows("studio/good", "off");
    until("the focus to follow", || page.focus().as_deref() == Some("Enable good of studio"));
    page.has_not_complained();
}

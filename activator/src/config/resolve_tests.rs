//! Tables of arguments and the settings or mistakes that follow from them.

use clap::Parser;

use super::*;

const URL: &str = "rtmp://a.example/live/{key}";
const SECRET: &str = "0123456789abcdef";

fn parse(args: &[&str]) -> Args {
    let all = ["liveedgecast-activator"].iter().chain(args);
    Args::try_parse_from(all).unwrap()
}

fn resolve(args: &[&str]) -> Result<Settings, String> {
    Settings::resolve(&parse(args), [7; 32]).map_err(|problems| problems.to_string())
}

fn good(args: &[&str]) -> Settings {
    let args: Vec<&str> = ["--open", "--push-url", URL].iter().chain(args).copied().collect();
    resolve(&args).unwrap()
}

#[test]
fn a_port_that_leads_to_one_process_is_asked_for_health_and_no_other() {
    for (args, asked) in [
        (&[][..], Some("[::]:8080")),
        (&["--http-listen", "127.0.0.1:7000"], Some("127.0.0.1:7000")),
        (&["--http-listen", "127.0.0.1:0"], None),
        (&["--reuse-port", "yes"], None),
    ] {
        let args = Args::try_parse_from(["x"].iter().chain(args)).unwrap();
        assert_eq!(http_address(&args).unwrap(), asked.map(|address| address.parse().unwrap()), "{args:?}");
    }
}

#[test]
fn being_open_to_strangers_must_be_asked_for() {
    let with = |more: &[&str]| resolve(&[&["--push-url", URL][..], more].concat());
    let text = with(&[]).unwrap_err();
    assert!(text.starts_with("1 mistake") && text.contains("PUBLISH_KEYS: nobody is listed"), "{text}");
    assert!(text.contains("--open") && text.contains("[::]:1935"), "the fix, and the port that it is about: {text}");
    for more in [&["--rtmp-listen", ":1935"][..], &["--rtmp-listen", "10.0.0.1:1"], &["--open=no"], &["--open=false"]] {
        assert!(with(more).is_err(), "{more:?}");
    }
    for more in
        [&["--open"][..], &["--open=yes"], &["--open=true"], &["--publish-keys", "a"], &["--rtmp-listen", "[::1]:1"]]
    {
        assert!(with(more).is_ok(), "{more:?}");
    }
    assert!(!with(&["--open", "--publish-keys", "a"]).unwrap().is_open_to_strangers(), "keys count for more");
}

#[test]
fn variables_have_names_with_the_prefix() {
    for argument in <Args as clap::CommandFactory>::command().get_arguments() {
        let Some(name) = argument.get_env() else { continue };
        let listed = liveedgecast_common::environment::variable(&name.to_string_lossy());
        assert!(listed.is_some(), "common/src/environment.rs does not list {name:?}");
    }
}

#[test]
fn a_push_url_is_enough_where_anyone_may_publish_and_the_rest_are_the_documented_defaults() {
    let settings = good(&[]);
    assert_eq!(settings.listen.rtmp, "[::]:1935".parse().unwrap());
    assert_eq!(settings.listen.http, "[::]:8080".parse().unwrap());
    assert_eq!(settings.listen.control, "127.0.0.1:6001".parse().unwrap());
    assert_eq!(settings.listen.link, "127.0.0.1:6002".parse().unwrap());
    assert_eq!(settings.listen.scaler, None);
    assert_eq!((settings.fleet, settings.handoff), (Fleet::Process, Handoff::Auto));
    assert_eq!((settings.capacity, settings.max_workers), (50, 4));
    let seconds = |time: Duration| time.as_secs();
    assert_eq!((seconds(settings.cooldown), seconds(settings.hold), seconds(settings.grace)), (30, 120, 10));
    assert_eq!(settings.replay, ReplayWindow { time: Duration::from_secs(4), bytes: 8 << 20 });
    assert_eq!((seconds(settings.upstream_lag), seconds(settings.drain)), (2, 8));
    assert_eq!(settings.secret.expose(), "07".repeat(32));
    assert!(settings.keys.is_none() && settings.is_open_to_strangers());
    assert!(!good(&["--rtmp-listen", "127.0.0.1:1"]).is_open_to_strangers());
    assert!(!good(&["--publish-keys", "a"]).is_open_to_strangers());
}

#[test]
fn values() {
    let replay = |text| good(&["--replay-window", text]).replay;
    assert_eq!(replay("10s").bytes, 8 << 20);
    assert_eq!(replay("9MiB"), ReplayWindow { time: Duration::from_secs(4), bytes: 16 << 20 });
    assert_eq!(replay("32MiB, 500ms"), ReplayWindow { time: Duration::from_millis(500), bytes: 32 << 20 });
    assert_eq!(good(&["--http-listen", ":9"]).listen.http, "[::]:9".parse().unwrap());
    assert_eq!(good(&["--http-listen", "localhost:9"]).listen.http, "127.0.0.1:9".parse().unwrap());
    assert_eq!(good(&["--capacity", "", "--grace", " "]).capacity, 50);
    let external = good(&["--fleet", "external", "--control-secret", SECRET]);
    assert_eq!(external.listen.control, "[::]:6001".parse().unwrap());
    assert!(external.peers.is_empty());
    let hosts = "control, Control.edge.svc:7001 10.0.0.1 [::1]:2 ::2";
    let external = good(&["--fleet", "external", "--control-secret", SECRET, "--activator-peers", hosts]);
    let peers: Vec<String> = external.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["control:6001", "control.edge.svc:7001", "10.0.0.1:6001", "::1:2", "::2:6001"]);
    assert_eq!(external.introducer, None);
    let found =
        ["--fleet", "external", "--control-secret", SECRET, "--activator-peers", "a", "--introducer", "any.svc"];
    assert_eq!(good(&found).introducer.map(|at| at.to_string()), Some("any.svc:6001".into()));
    assert_eq!(external.listen.scaler, Some("[::]:6000".parse().unwrap()));
    let shared = good(&["--fleet", "external", "--control-secret", SECRET, "--reuse-port", "yes"]);
    let peers: Vec<String> = shared.peers.iter().map(ToString::to_string).collect();
    assert_eq!((shared.listen.shared, peers), (true, vec!["127.0.0.1:6001".to_owned()]), "the other one is here");
    assert_eq!(
        resolve(&["--open", "--push-url", "rtmp://a/b/c", "--push-url", "rtmp://d/e/f rtmps://g/h/i"])
            .unwrap()
            .push
            .len(),
        3
    );
    let kubernetes = |more: &[&str]| {
        let all = ["--fleet", "external", "--control-secret", SECRET, "--worker-deployment", "workers"];
        let settings = good(&[&all, more].concat());
        (settings.kubernetes.unwrap(), settings.max_workers, settings.cooldown.as_secs())
    };
    let workers = |idle_may_go| Kubernetes { deployment: "workers".into(), idle_may_go };
    assert_eq!(kubernetes(&[]), (workers(false), 20, 30));
    assert_eq!(kubernetes(&["--max-workers", "7", "--scale-in", "idle", "--cooldown", "9s"]), (workers(true), 7, 9));
    // Port 0 is any port, for all of them at once.
    let zero = "127.0.0.1:0";
    good(&["--rtmp-listen", zero, "--http-listen", zero, "--control-listen", zero, "--link-listen", zero]);
}

/// Arguments, and a part of the sentence about the mistake in them.
const MISTAKES: &[(&[&str], &str)] = &[
    (&[], "RTMP_PUSH_URL: is required"),
    (&["--push-url", "http://a/b/c"], "RTMP_PUSH_URL: URL 1: a push URL begins with rtmp://"),
    (&["--push-url", URL, "--push-url-file", "/x"], "RTMP_PUSH_URL: given both directly and as RTMP_PUSH_URL_FILE"),
    (&["--push-url-file", "/does/not/exist"], "RTMP_PUSH_URL_FILE: can not read /does/not/exist"),
    (&["--push-url", URL, "--publish-keys", ","], "PUBLISH_KEYS: the list is empty"),
    (&["--push-url", URL, "--fleet", "k8s"], "FLEET: \"k8s\" is not known: write one of process, external"),
    (&["--push-url", URL, "--handoff", "x"], "HANDOFF: \"x\" is not known: write one of auto, descriptor, link"),
    (&["--push-url", URL, "--rtmp-listen", "1935"], "RTMP_LISTEN: \"1935\" is not an address"),
    (
        &["--push-url", URL, "--rtmps-listen", "[::]:1936"],
        "RTMPS_CERT_FILE: is required with RTMPS_LISTEN and RTMPS_KEY_FILE",
    ),
    (
        &["--push-url", URL, "--rtmps-cert-file", "a,b", "--rtmps-key-file", "a"],
        "RTMPS_KEY_FILE: names 1 files for 2 certificates",
    ),
    (
        &["--push-url", URL, "--rtmps-cert-file", "/none", "--rtmps-key-file", "/none"],
        "RTMPS_CERT_FILE: can not read /none",
    ),
    (&["--push-url", URL, "--http-listen", "[::]:1935"], "HTTP_LISTEN: has the port of RTMP_LISTEN, 1935"),
    (&["--push-url", URL, "--activator-peers", "a:6001"], "ACTIVATOR_PEERS: is about activators that share workers"),
    (
        &["--push-url", URL, "--fleet", "external", "--control-secret", SECRET, "--activator-peers", "a:6001 b:c"],
        "ACTIVATOR_PEERS: \"b:c\" is not where activators are",
    ),
    (&["--push-url", URL, "--reuse-port", "maybe"], "REUSE_PORT: \"maybe\" is not known: write one of no, yes"),
    (&["--push-url", URL, "--reuse-port", "yes"], "REUSE_PORT: is about activators that share workers"),
    (
        &[
            "--push-url",
            URL,
            "--fleet",
            "external",
            "--control-secret",
            SECRET,
            "--reuse-port",
            "yes",
            "--activator-peers",
            "a",
        ],
        "ACTIVATOR_PEERS: is about other hosts",
    ),
    (
        &[
            "--push-url",
            URL,
            "--fleet",
            "external",
            "--control-secret",
            SECRET,
            "--reuse-port",
            "yes",
            "--control-listen",
            "[::1]:0",
        ],
        "REUSE_PORT: has nothing to share with CONTROL_LISTEN at port 0",
    ),
    (&["--push-url", URL, "--introducer", "a:6001"], "INTRODUCER: is about activators that look for each other"),
    (
        &[
            "--push-url",
            URL,
            "--fleet",
            "external",
            "--control-secret",
            SECRET,
            "--activator-peers",
            "a",
            "--introducer",
            "b:c",
        ],
        "INTRODUCER: \"b:c\" is not where an activator is",
    ),
    (&["--push-url", URL, "--scaler-listen", "[::]:8080"], "SCALER_LISTEN: has the port of HTTP_LISTEN"),
    (&["--push-url", URL, "--scaler-tls-cert-file", "/x.pem"], "SCALER_TLS_KEY_FILE: is required with"),
    (&["--push-url", URL, "--scaler-tls-client-ca-file", "/x.pem"], "SCALER_TLS_CERT_FILE: is required with"),
    (
        &["--push-url", URL, "--scaler-tls-cert-file", "/x.pem", "--scaler-tls-key-file", "/x.pem"],
        "SCALER_TLS_CERT_FILE: is about the scaler, which is off",
    ),
    (
        &["--push-url", URL, "--control-listen", "[::]:6001"],
        "CONTROL_SECRET: is required when control or link listen off",
    ),
    (
        &["--push-url", URL, "--link-listen", "10.0.0.1:6002"],
        "CONTROL_SECRET: is required when control or link listen off",
    ),
    (&["--push-url", URL, "--fleet", "external"], "CONTROL_SECRET: is required when"),
    (
        &["--push-url", URL, "--fleet", "external", "--control-listen", "127.0.0.1:1", "--link-listen", "127.0.0.1:2"],
        "CONTROL_SECRET: is required with FLEET=external",
    ),
    (&["--push-url", URL, "--fleet", "external", "--control-secret", "short"], "CONTROL_SECRET: is shorter than 16"),
    (&["--push-url", URL, "--admin-token", "short"], "ADMIN_TOKEN: needs 16 characters or more of ASCII"),
    (&["--push-url", URL, "--view-token", "a token with spaces"], "VIEW_TOKEN: needs 16 characters or more of ASCII"),
    (&["--push-url", URL, "--admin-token-file", "/does/not/exist"], "ADMIN_TOKEN_FILE: can not read /does/not/exist"),
    (&["--push-url", URL, "--control-secret", SECRET, "--admin-token", SECRET], "ADMIN_TOKEN: is the control secret"),
    (&["--push-url", URL, "--admin-token", SECRET, "--view-token", SECRET], "VIEW_TOKEN: is the same as ADMIN_TOKEN"),
    (
        &["--push-url", URL, "--fleet", "external", "--control-secret", SECRET, "--max-workers", "3"],
        "MAX_WORKERS: is about workers that we start, or that come by WORKER_DEPLOYMENT",
    ),
    (
        &["--push-url", URL, "--fleet", "external", "--control-secret", SECRET, "--cooldown", "3s"],
        "COOLDOWN: is about workers that we start, or that come by SCALE_IN=idle",
    ),
    (
        &["--push-url", URL, "--worker-deployment", "w"],
        "WORKER_DEPLOYMENT: is about workers in pods: set FLEET=external",
    ),
    (&["--push-url", URL, "--scale-in", "all"], "SCALE_IN: \"all\" is not known: write one of none, idle"),
    (&["--push-url", URL, "--scale-in", "idle"], "SCALE_IN: idle needs WORKER_DEPLOYMENT"),
    (
        &["--push-url", URL, "--fleet", "external", "--control-secret", SECRET, "--worker-deployment", "A/b"],
        "WORKER_DEPLOYMENT: \"A/b\" is no name of a Deployment",
    ),
    (&["--push-url", URL, "--capacity", "0"], "CAPACITY: \"0\" is not a whole number from 1 to 10000"),
    (&["--push-url", URL, "--max-workers", "-1"], "MAX_WORKERS: \"-1\" is not"),
    (&["--push-url", URL, "--hold-timeout", "120"], "HOLD_TIMEOUT: \"120\" is not a duration"),
    (&["--push-url", URL, "--hold-timeout", "0s"], "HOLD_TIMEOUT: 0s is not from 1s to 24h"),
    (&["--push-url", URL, "--grace", "25h"], "GRACE: 25h is not from 0s to 24h"),
    (&["--push-url", URL, "--replay-window", "1MiB"], "REPLAY_WINDOW: the size is 1MiB: from 8MiB"),
    (&["--push-url", URL, "--replay-window", "4s,5s"], "REPLAY_WINDOW: one time and one size at most"),
    (&["--push-url", URL, "--replay-window", "lots"], "REPLAY_WINDOW: \"lots\" is neither"),
    (&["--push-url", URL, "--max-connections", "no"], "MAX_CONNECTIONS: \"no\" is not a whole number"),
];

#[test]
fn every_mistake_is_told_with_its_fix() {
    for (args, part) in MISTAKES {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        // A value that begins with a dash has to be joined to its flag.
        let joined: Vec<String> = args.chunks(2).map(|pair| pair.join("=")).collect();
        let args: Vec<&str> = ["--open"].into_iter().chain(joined.iter().map(String::as_str)).collect();
        let text = resolve(&args).expect_err(part);
        assert!(text.starts_with("1 mistake in the configuration:"), "{args:?}: {text}");
        assert!(text.contains(part), "{args:?}: {text}");
    }
}

#[test]
fn publishers_by_rtmps_cannot_be_handed_over_by_descriptor_alone() {
    let push = format!("--push-url={URL}");
    let args = ["--open", &push, "--rtmps-cert-file=/none", "--rtmps-key-file=/none", "--handoff=descriptor"];
    let text = resolve(&args).unwrap_err();
    assert!(text.starts_with("2 mistakes") && text.contains("HANDOFF: descriptor cannot carry RTMPS"), "{text}");
}

#[test]
fn all_mistakes_are_told_at_once_and_none_shows_a_key() {
    let text = resolve(&["--push-url", "rtmp://h/S3CRET", "--publish-keys", "/S3CRET", "--grace", "x", "--fleet", "y"]);
    let text = text.unwrap_err();
    assert!(text.starts_with("4 mistakes in the configuration:"), "{text}");
    assert!(!text.contains("S3CRET"), "{text}");
    let args = parse(&["--push-url", "rtmp://h/S3CRET", "--publish-keys", "S3CRET", "--control-secret", "S3CRET"]);
    assert!(!format!("{args:?}").contains("S3CRET"));
    let tokens = ["--admin-token", "S3CRET-for-changes", "--view-token", "S3CRET-for-reading"];
    let settings = good(&[&["--publish-keys", "S3CRET", "--control-secret", "S3CRET"][..], &tokens].concat());
    let (admin, view) = (settings.tokens.admin.as_ref(), settings.tokens.view.as_ref());
    assert_eq!(admin.zip(view).map(|(a, v)| (a.expose(), v.expose())), Some((tokens[1], tokens[3])));
    assert!(!format!("{settings:?}").contains("S3CRET"));
}

#[test]
fn mistake_in_a_file_is_told_under_the_setting_that_names_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, b"short").unwrap();
    let bad = file.path().to_str().unwrap();
    let rows: [(&[&str], &str); 7] = [
        (&["--push-url-file", bad], "RTMP_PUSH_URL_FILE: "),
        (&["--push-url", URL, "--jwt-secret-file", bad], "LIVEEDGECAST_JWT_SECRET_FILE: is shorter"),
        (&["--push-url", URL, "--admin-token-file", bad], "ADMIN_TOKEN_FILE: needs"),
        (&["--push-url", URL, "--view-token-file", bad], "VIEW_TOKEN_FILE: needs"),
        (
            &["--push-url", URL, "--control-secret-file", bad, "--control-listen", "0.0.0.0:6001"],
            "CONTROL_SECRET_FILE: is shorter",
        ),
        (
            &["--push-url", URL, "--events-url", "http://a/", "--events-secret-file", bad],
            "LIVEEDGECAST_EVENTS_SECRET_FILE: ",
        ),
        (&["--push-url", URL, "--jwt-secret", "short"], "LIVEEDGECAST_JWT_SECRET: is shorter"),
    ];
    for (args, told) in rows {
        let problems = resolve(args).unwrap_err();
        assert!(problems.contains(told), "{args:?}: {problems}");
    }
}
